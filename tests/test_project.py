import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

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
    direct = [*PROJECT["dependencies"], *(r for name in ("book", "test") for r in extras[name])]
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
