import importlib
import sys

import pytest

from sparselib.experiments import networks
from sparselib.repro import dependencies
from sparselib.repro.step import StepError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, whose sources a test may rewrite."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(dependencies, "PACKAGE", folder)
    monkeypatch.setattr(dependencies, "NAME", "toy")

    def digests(start="top", **files):
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        dependencies._module.cache_clear()
        return dependencies._closure({("toy.a", start)}, stop={"toy.b.TABLE"})

    yield digests
    dependencies._module.cache_clear()


B = '''
LIMIT = 3
TABLE = {"far": None}
def used(x):
    """Doc."""
    return x + LIMIT
def far(x): return x
'''
A = """
from toy import b
from toy.b import used as alias
def top(x): return alias(x) + b.LIMIT + len(b.TABLE)
def aside(x): return b.far(x)
"""


def test_only_what_can_be_reached_counts(package):
    assert set(package(a=A, b=B)) == {"toy.a.top", "toy.b.used", "toy.b.LIMIT"}
    assert set(package("aside", a=A, b=B)) == {"toy.a.aside", "toy.b.far"}


@pytest.mark.parametrize(
    "old, new, changed",
    [
        ("x + LIMIT", "x - LIMIT", ["toy.b.used"]),
        ("LIMIT = 3", "LIMIT = 4", ["toy.b.LIMIT"]),
        ('"""Doc."""', '"""Other words."""', []),
        ("return x + LIMIT", "return (x +\n        LIMIT)  # why", []),
        ("def far(x): return x", "def far(x): return -x", []),
        ('"far": None', '"far": 0', []),
        ("used(x):", "used(x: float = 0) -> float:", ["toy.b.used"]),  # the default counts, the types do not
        ("used(x):", "used(x: float) -> float:", []),
    ],
)
def test_what_changes_the_digest(package, old, new, changed):
    before = package(a=A, b=B)
    assert dependencies.changes(before, package(a=A, b=B.replace(old, new))) == changed


def test_moved_code_keeps_its_digest(package):
    before = dependencies.digest(package(a=A, b=B))
    moved = A.replace("b.LIMIT", "c.LIMIT").replace("from toy import b", "from toy import b, c")
    b = B.replace("LIMIT = 3", "from toy.c import LIMIT")
    assert dependencies.digest(package(a=moved, b=b, c="LIMIT = 3\n")) == before
    assert dependencies.digest(package(a=moved, b=b, c="LIMIT = 4\n")) != before


def test_a_module_handed_on_counts_whole(package):
    assert "toy.b.*" in package(a="from toy import b\ndef top(x): return x(b)\n", b=B)


def test_steps_depend_on_what_they_use_and_on_nothing_else():
    names = set(networks.Trained(data=networks.Data(name="digits"), network="convnet", epochs=1).code())
    assert {"sparselib.training.fit", "sparselib.data.load", "sparselib.models.build"} <= names
    assert {name for name in names if name.startswith("sparselib.experiments.")} == {
        f"sparselib.experiments.{n}"
        for n in (
            "networks.NetworkStep", "networks.Trained", "networks.foreign",
            "samples.Data", "samples.fingerprint", "samples.inliers", "samples.pools",
        )
    }  # fmt: skip
    wings = (
        "sparselib.robustness.attacks",
        "sparselib.robustness.shifts",
        "sparselib.detection",
        "sparselib.pruning.weights",
        "sparselib.repro",
    )
    assert not [name for name in names if name.startswith(wings)]


def test_what_rows_are_labelled_with_does_not_count(package):
    step = "from toy import b\nclass top:\n    def columns(self): return b.LIMIT\n    def compute(self): return 1\n"
    before = package(a=step, b=B)
    assert dependencies.changes(before, package(a=step.replace("return b.LIMIT", "return {}"), b=B)) == []
    assert dependencies.changes(before, package(a=step.replace("return 1", "return 2"), b=B)) == ["toy.a.top"]


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A module of others that names two more, one through the other, and what is installed."""
    texts = {
        "theirs": "import numpy as np\nimport theirs_too\nfrom sparselib import seeds\ndef load(x):\n    return x\n",
        "theirs_too": "from theirs_deep import FACTOR, scaled\n",
        "theirs_deep": "import json\nimport theirs\nFACTOR = 2\ndef scaled(x): return FACTOR * x\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("theirs")
    for name in texts:
        sys.modules.pop(name, None)


def test_the_code_of_what_others_registered_counts(theirs, tmp_path):
    before = dependencies.of_objects(theirs.load)
    assert set(before) == {"theirs.load", "theirs_too", "theirs_deep"}, "neither the library's own, nor the installed"
    for name in ("theirs_deep", "theirs_too", "theirs"):
        path = tmp_path / f"{name}.py"
        path.write_text(path.read_text(encoding="utf-8") + "\nMORE = 1\n", encoding="utf-8")
        assert dependencies.of_objects(theirs.load) == before, "what runs here is what was imported"
    after = dependencies.of_objects(importlib.reload(theirs).load)
    assert all(after[name] != text for name, text in before.items())


def test_code_that_was_edited_after_its_import_is_not_taken_for_what_runs(package, monkeypatch):
    package(a=A, b=B)
    path = dependencies.PACKAGE / "b.py"
    monkeypatch.setattr(dependencies, "_IMPORTED", {path: dependencies._stamp(path)})
    assert package(a=A.replace("top(x)", "top(x, y=1)")), "another file may change"
    with pytest.raises(
        dependencies.CodeError, match=r"toy.b\.py was edited after this process had read it: run it again"
    ):
        package(b=B.replace("LIMIT = 3", "LIMIT = 44"))


def test_a_step_tells_that_its_code_was_edited(monkeypatch):
    dependencies._module.cache_clear()
    dependencies._of_symbols.cache_clear()
    file = dependencies.PACKAGE / "training.py"
    monkeypatch.setitem(dependencies._IMPORTED, file, (0, 0))
    step = networks.Trained(data={"name": "digits"}, network="convnet", width=4, epochs=1, seed=0)
    with pytest.raises(StepError, match=r"Trained: sparselib.training\.py was edited after"):
        str(step.key)
    dependencies._module.cache_clear()


def test_code_is_told_by_names_as_by_the_objects_themselves():
    chosen = networks.Pruned, networks.Trained
    names = [f"{thing.__module__}.{thing.__name__}" for thing in chosen]
    tables = networks.Trained.tables
    assert dependencies.of_names(names, tables) == dependencies.of_objects(*chosen, tables=tables) != {}
    gone = ["sparselib.experiments.networks.Gone", "sparselib.nowhere.x", "x", "", "os.path.join"]
    assert dependencies.of_names(gone) == {}
