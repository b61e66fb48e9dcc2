import pytest

from sparselib.repro import networks, source


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, whose sources a test may rewrite."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(source, "PACKAGE", folder)
    monkeypatch.setattr(source, "NAME", "toy")
    monkeypatch.setattr(source, "MACHINERY", set())

    def digests(start="top", **files):
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        source._module.cache_clear()
        return source._closure({("toy.a", start)}, stop={"toy.b.TABLE"})

    yield digests
    source._module.cache_clear()


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
    assert source.changes(before, package(a=A, b=B.replace(old, new))) == changed


def test_moved_code_keeps_its_digest(package):
    before = source.digest(package(a=A, b=B))
    moved = A.replace("b.LIMIT", "c.LIMIT").replace("from toy import b", "from toy import b, c")
    b = B.replace("LIMIT = 3", "from toy.c import LIMIT")
    assert source.digest(package(a=moved, b=b, c="LIMIT = 3\n")) == before
    assert source.digest(package(a=moved, b=b, c="LIMIT = 4\n")) != before


def test_a_module_handed_on_counts_whole(package):
    assert "toy.b.*" in package(a="from toy import b\ndef top(x): return x(b)\n", b=B)


def test_cells_depend_on_what_they_use_and_on_nothing_else():
    names = set(source.of_objects(networks.Trained))
    assert {"sparselib.training.fit", "sparselib.data.load", "sparselib.models.build"} <= names
    assert not [n for n in names if n.startswith(("sparselib.attacks", "sparselib.detectors", "sparselib.pruning"))]
    assert not [n for n in names if n.startswith("sparselib.repro.") and n.split(".")[2] not in ("cells", "networks")]
