"""The stamp says what ran: the commit of the project itself, this interpreter, nobody's settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparselib.repro import notebooks, project
from sparselib.repro import parameters as typed

ROOT = Path(__file__).resolve().parents[2]
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
