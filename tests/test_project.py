import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _pins():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    pins = {}
    for line in lines:
        name, version = re.fullmatch(r"([\w.\-]+)==([\w.]+)", line).groups()
        pins[canonicalize_name(name)] = version
    return pins


def _needed(requirements, seen):
    """Walk what is installed: every package that ours need, directly or not."""
    for text in requirements:
        requirement = Requirement(text)
        extras = requirement.extras or {""}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in {""}):
            continue
        name = canonicalize_name(requirement.name)
        if (name, frozenset(extras)) in seen:
            continue
        seen[name, frozenset(extras)] = requirement
        for inner in distribution(name).requires or []:
            marker = Requirement(inner).marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in extras):
                _needed([inner.split(";")[0]], seen)
    return seen


def test_constraints_pin_every_package_within_the_ranges():
    pins = _pins()
    extras = PROJECT["optional-dependencies"]
    direct = [*PROJECT["dependencies"], *(r for name in ("book", "test", "foreign") for r in extras[name])]
    for (name, _), requirement in _needed(direct, {}).items():
        if name == "setuptools":  # any release does, and environments bring their own
            continue
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement}, pinned {pins[name]}"
    for text in extras["cluster"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_environment_installs_the_project_under_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[book]"]
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.split("=")[1])


def test_pip_accepts_the_conda_file_and_has_nothing_to_add():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    arguments = " ".join(next(e["pip"] for e in environment["dependencies"] if isinstance(e, dict))).split()
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_storeys_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_help_lists_every_target():
    done = subprocess.run(["make", "help"], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert all(
        f"make {target} " in done.stdout
        for target in ("book", "reproduce", "figure", "status", "verify", "test", "help", "lint", "clean")
    )


MODULES = sorted((ROOT / "sparselib").rglob("*.py"))
NOTEBOOKS = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book").rglob("*.ipynb"))]


def _code(path):
    """Return (tags, source) of the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(c["metadata"].get("tags", []), "".join(c["source"])) for c in cells if c["cell_type"] == "code"]


def test_modules_are_short_and_rooms_are_not_crowded():
    assert not [(path.name, n) for path in MODULES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400]
    rooms = Counter(path.parent for path in MODULES if path.stem != "__init__")
    assert max(rooms.values()) <= 15, rooms


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_cells_can_be_read(path):
    for tags, source in _code(path):
        lines = source.splitlines()
        assert max(map(len, lines), default=0) <= 88, source
        assert len(lines) <= 25 or {"parameters", "hide-cell"} & set(tags), source


def test_code_before_the_first_result_of_a_claim_is_folded_away():
    for path in (path for path in NOTEBOOKS if path.parent.name == "notebooks" and path.stem[:2] != "00"):
        before = itertools.takewhile(lambda cell: "figure" not in cell[0], _code(path))
        assert all({"hide-input", "remove-input"} & set(tags) for tags, _ in before), path.name


def test_nothing_is_read_back_out_of_words():
    """Rows carry what they are in columns: no label that the project wrote is taken apart again."""
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "sparselib" / "experiments").glob("*.py")}
    sources |= {
        path: "\n".join(source for _, source in _code(path)) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    }
    taken_apart = re.compile(r"\.(startswith|endswith|r?partition|removeprefix|removesuffix)\(|\.r?split\([\"')]")
    assert not [(path.name, found[0]) for path, text in sources.items() if (found := taken_apart.search(text))]


def test_private_names_stay_in_their_module():
    names = {path.stem for path in MODULES}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                own = node.value.id == path.stem or node.attr.startswith("__") or node.value.id == "step"
                assert own or not node.attr.startswith("_"), f"{path.name}: {node.value.id}.{node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparselib"):
                assert not [a.name for a in node.names if a.name.startswith("_")], path.name


def test_checksums_are_of_the_pinned_versions():
    pinned = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    hashed = (ROOT / "constraints-hashed.txt").read_text(encoding="utf-8")
    found = re.findall(r"(?m)^([\w.\-]+)==(\S+) \\$", hashed)
    names = ((re.sub("[-_.]+", "-", name).lower(), v) for name, v in (line.split("==") for line in pinned))
    assert sorted(found) == sorted(names)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", hashed)) >= len(pinned)
    assert not re.findall(r"https?:|--(?:index|find)", hashed)
