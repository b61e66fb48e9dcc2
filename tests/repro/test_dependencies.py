import importlib

import pytest

from sparselib.experiments import networks
from sparselib.repro import dependencies


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


def test_the_code_of_what_others_registered_counts(tmp_path, monkeypatch):
    module = tmp_path / "theirs.py"
    module.write_text("def load(x):\n    return x\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = importlib.import_module("theirs")
    before = dependencies.of_objects(theirs.load)
    assert list(before) == ["theirs.load"]  # not the library's own `load`
    module.write_text("def load(x):\n    return 2 * x\n", encoding="utf-8")
    assert dependencies.of_objects(theirs.load) != before
