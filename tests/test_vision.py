import subprocess
import sys

import pytest

from sparselib import vision

CHILD = """
import torch
try:
    import torchvision
    plain = True
except RuntimeError:
    plain = False
from sparselib import vision
tv = vision.torchvision()
assert tv.datasets.MNIST and tv.models.resnet18
assert (vision.declared is None) == plain, "declared exactly when needed"
assert vision.torchvision() is tv
print("plain" if plain else "cured")
"""


def test_torchvision_imports_in_a_fresh_process_and_is_cured_only_when_needed():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("plain", "cured")


def test_another_failure_is_told(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(vision.importlib, "import_module", broken)
    with pytest.raises(ImportError, match="something else"):
        vision.torchvision()
