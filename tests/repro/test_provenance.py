"""The stamp says what ran: the commit of the project itself, this interpreter, nobody's settings."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from sparselib import cli, experiments
from sparselib.repro import notebooks, project
from sparselib.repro import parameters as typed

ROOT = Path(__file__).resolve().parents[2]
FIELDS = experiments.PAGES["00_quickstart"].model_fields
WHERE = "from sparselib.repro import project; print(project.root()); print(project.commit())"


def _git(folder, *arguments):
    who = {f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, encoding="utf-8", check=True,
        env={**os.environ, **who},
    )  # fmt: skip
    return done.stdout.strip()


def _project(folder):
    """Make a project of a package, a notebook folder and a configuration; not a repository."""
    shutil.copytree(ROOT / "sparselib", folder / "sparselib", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    (folder / "_config.yml").write_text("title: x\n", encoding="utf-8")
    return folder


def _say(folder, package, **surroundings):
    """Return what a process in a folder says of the project, with the package of another."""
    return subprocess.run(
        [sys.executable, "-c", WHERE], cwd=folder, capture_output=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1", **surroundings},
    )  # fmt: skip


@pytest.fixture
def committed(tmp_path):
    """(project, its commit)"""
    folder = _project(tmp_path / "it")
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "x")
    return folder, _git(folder, "rev-parse", "--short=10", "HEAD")


def test_the_commit_is_the_projects_own_whatever_git_is_told(committed, tmp_path):
    folder, commit = committed
    other = tmp_path / "other"
    other.mkdir()
    _git(other, "init", "-q")
    _git(other, "commit", "-qm", "y", "--allow-empty")
    for told in ({}, {"GIT_DIR": str(other / ".git")}, {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}):
        assert _say(folder, folder, **told).stdout.split() == [str(folder), commit]
    (folder / "sparselib" / "seeds.py").write_text("\n", encoding="utf-8")
    assert _say(folder, folder).stdout.split()[1] == f"{commit}+changes"


def test_a_repository_around_the_project_gives_it_no_commit(tmp_path):
    folder = _project(tmp_path / "around" / "it")
    _git(tmp_path / "around", "init", "-q")
    _git(tmp_path / "around", "add", "-A")
    _git(tmp_path / "around", "commit", "-qm", "x")
    assert _say(folder, folder).stdout.split() == [str(folder), "unknown"]


def test_the_package_of_another_project_is_refused(committed, tmp_path):
    folder, _ = committed
    other = _project(tmp_path / "second")
    done = _say(folder, other)
    assert done.returncode and not done.stdout
    said = f"the project here is {folder}, but the package that runs is {other / 'sparselib'}"
    assert said in done.stderr and f"PYTHONPATH={folder}" in done.stderr
    linked = tmp_path / "link"
    linked.symlink_to(folder)
    assert not _say(folder, linked).returncode, "the same package by another path"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("out.txt", "must end in .ipynb"),
        ("notebooks/05_sensnorm.ipynb", "must not lie in .*notebooks, which is for the book"),
        ("notebooks/new.ipynb", "must not lie in .*notebooks, which is for the book"),
        ("store/x.ipynb", "must not lie in .*store, which is for the store"),
        ("results/digits/x.ipynb", "must not lie in .*results, which is for the published results"),
        ("_build/notebooks/x.ipynb", "must not lie in .*_build, which is for what is built"),
        ("link.ipynb", "must not lie in .*notebooks"),
        ("folder.ipynb", "must be a file, not a folder"),
        ("other.ipynb", "is there already and is no notebook that this command has written"),
        ("file/x.ipynb", "file is no folder"),
    ],
)
def test_an_executed_notebook_goes_nowhere_where_something_else_is(tmp_path, monkeypatch, place, said):
    for name in ("notebooks", "store", "folder.ipynb"):
        (tmp_path / name).mkdir()
    (tmp_path / "other.ipynb").write_text('{"cells": []}', encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "notebooks" / "05_sensnorm.ipynb")
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    monkeypatch.delenv("SPARSELIB_STORE", raising=False)
    with pytest.raises(typed.ParameterError, match=said):
        notebooks.check_output(tmp_path / place)
    notebooks.check_output(tmp_path / "new" / "x.ipynb")


@pytest.mark.parametrize(("text", "said"), [("<<<<<<< HEAD", "line 1"), ('{"cells": [', "line 1"), ("{}", "")])
def test_a_damaged_template_is_named_in_one_line(tmp_path, monkeypatch, text, said):
    path = tmp_path / "page.ipynb"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(notebooks, "template", lambda model: path)
    with pytest.raises(notebooks.GateError, match=f"the template {path} is no notebook: .*{said}") as told:
        notebooks.read_template(None)
    assert "\n" not in str(told.value)


def test_where_the_user_stands_and_what_lies_there_only_says_where_files_are(tmp_path):
    """A folder of images beside the user, a long TMPDIR, settings of matplotlib that no machine can follow, Latin-1."""
    for split, k, i in itertools.product(("train", "test"), range(2), range(8)):
        path = tmp_path / "imgs" / split / "äb"[k] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(100 * k, 100 * k + 100, (8, 8), "uint8")).save(path)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: nothing\n", encoding="utf-8")
    temporary = tmp_path / ("x" * 120)
    temporary.mkdir()
    small = ["epochs=1", "width=4", "dataset=folder:imgs", "held_out=[]"]
    command = ["run", "0", "-o", "here.ipynb", *(f"--set={each}" for each in small if each.split("=")[0] in FIELDS)]
    told = {
        "TMPDIR": str(temporary), "SPARSELIB_STORE": "st", "PYTHONPATH": str(ROOT), "LC_ALL": "C",
        "PYTHONIOENCODING": "latin-1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "sparselib", *command], cwd=tmp_path, capture_output=True, timeout=300,
        env={**os.environ, **told},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["here.ipynb", "imgs", "matplotlibrc", "st", temporary.name]
    assert not [name for name in os.listdir(temporary) if name.startswith("kernel-")]
    found = nbformat.read(tmp_path / "here.ipynb", as_version=4).metadata["sparselib"]["parameters"]
    assert found["dataset"] == f"folder:{tmp_path / 'imgs'}"


def test_paths_are_meant_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(cli, "_here", tmp_path)
    place = str(tmp_path)
    assert cli._placed("folder:a/../b") == f"folder:{place}/b" and cli._placed("folder:/x") == "folder:/x"
    assert cli._placed(["folder:b", "digits", 3]) == [f"folder:{place}/b", "digits", 3]
    assert cli._placed("net.py:Make") == f"{place}/net.py:Make" and cli._placed("net.py") == f"{place}/net.py"
    for other in ("folder:", "package.net:Make", "none.py:Make", "convnet", "pgd:0.1", "", 0.5, None):
        assert cli._placed(other) == other
    with pytest.raises(typed.ParameterError, match="no home folder for '~nobody-here/x'"):
        cli._placed("folder:~nobody-here/x")
    monkeypatch.chdir(tmp_path)
    assert cli._placed("folder:b") == "folder:b"


def test_a_notebook_of_the_same_name_elsewhere_is_refused(tmp_path, monkeypatch):
    (tmp_path / "05_sensnorm.ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(cli, "_here", tmp_path)
    with pytest.raises(typed.ParameterError, match="must be the project's own"):
        cli._check_own("05_sensnorm.ipynb", experiments.PAGES["05_sensnorm"])
    for name in ("5", "notebooks/05_sensnorm.ipynb", str(ROOT / "notebooks" / "05_sensnorm.ipynb")):
        cli._check_own(name, experiments.PAGES["05_sensnorm"])
