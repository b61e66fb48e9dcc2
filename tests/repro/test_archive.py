"""One file with the book, the rows and the sources; unpacked, it tells what was altered."""

import shutil
import subprocess
import tarfile
import zipfile

import pytest

from sparselib import cli
from sparselib.repro import archive, book, project

FILES = {
    "_config.yml": "title: x\n", "notebooks/a.ipynb": "{}\n", "results/digits/a.csv": "metric,value\n",
    ".gitignore": "_build/\n.venv/\n__pycache__/\n*.egg-info/\n", "constraints.txt": "torch==2.0\n",
    "näme with space.md": "ü\n",
}  # fmt: skip


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small project with one commit and a rendered book, which counts as that of its sources."""
    folder = tmp_path / "clone"
    write(folder, FILES)
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    write(folder, {"_build/html/index.html": "<h1>x</h1>", "_build/html/_static/a.css": "a {}", "_build/book.log": "x"})
    monkeypatch.setattr(project, "root", lambda: folder)
    monkeypatch.setattr(book, "why_stale", lambda pages: None)
    return folder


@pytest.fixture
def unpacked(clone, tmp_path, monkeypatch):
    with zipfile.ZipFile(archive.write({}, tmp_path / "a.zip")) as packed:
        packed.extractall(tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    monkeypatch.setattr(project, "root", lambda: folder)
    return folder


def test_the_archive_holds_the_book_the_commit_and_a_manifest(clone, unpacked):
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert found == {*FILES, "html/index.html", "html/_static/a.css", archive.ABOUT, archive.MANIFEST}
    assert all((unpacked / name).read_text(encoding="utf-8") == text for name, text in FILES.items())
    commit = subprocess.run(
        ["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, encoding="utf-8"
    ).stdout
    assert commit.strip() in (unpacked / archive.ABOUT).read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_the_same_commit_and_book_give_the_same_bytes(clone, tmp_path, suffix):
    first = archive.write({}, tmp_path / f"first{suffix}").read_bytes()
    for path in clone.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.touch()
    assert archive.write({}, tmp_path / f"second{suffix}").read_bytes() == first


def test_both_formats_hold_the_same(clone, unpacked, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "root", lambda: clone)
    with tarfile.open(archive.write({}, tmp_path / "a.tar.gz")) as packed:
        packed.extractall(tmp_path / "tar", filter="data")
    other = tmp_path / "tar" / unpacked.name
    assert archive.check(other) == archive.check(unpacked) == len(FILES) + 3
    assert (other / archive.MANIFEST).read_bytes() == (unpacked / archive.MANIFEST).read_bytes()


def test_what_was_altered_lost_or_added_is_named(unpacked):
    (unpacked / "results/digits/a.csv").write_text("metric,value\naccuracy,1\n", encoding="utf-8")
    (unpacked / "constraints.txt").unlink()
    write(unpacked, {"results/digits/b.csv": "x"})
    with pytest.raises(archive.ArchiveError) as told:
        archive.check(unpacked)
    assert str(told.value) == (
        "not as archived: altered: results/digits/a.csv; missing: constraints.txt; "
        "not of the archive: results/digits/b.csv"
    )


@pytest.mark.parametrize("line", ["", "0123  a", f"{'0' * 64}  ../a", f"{'0' * 64}  /etc/hosts"])
def test_a_manifest_that_is_none_is_refused(unpacked, line):
    (unpacked / archive.MANIFEST).write_text(line + "\n" if line else "", encoding="utf-8")
    with pytest.raises(archive.ArchiveError, match=r"MANIFEST\.sha256(, line 1| is empty).*unpack the archive again"):
        archive.check(unpacked)


def test_what_is_built_later_does_not_count(unpacked):
    later = ("_build/html/index.html", ".venv/bin/python", "sparselib/__pycache__/a.pyc", "sparselib.egg-info/SOURCES")
    write(unpacked, dict.fromkeys(later, "x"))
    assert archive.check(unpacked) == len(FILES) + 3


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_the_manifest_is_one_for_sha256sum(unpacked):
    check = ["sha256sum", "--check", "--strict", "--quiet", archive.MANIFEST]
    assert subprocess.run(check, cwd=unpacked).returncode == 0
    (unpacked / "html/index.html").write_text("<h1>y</h1>", encoding="utf-8")
    assert subprocess.run(check, cwd=unpacked, capture_output=True).returncode == 1


def test_no_archive_is_made_of_what_is_not_committed_or_not_built(clone, unpacked, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "root", lambda: clone)
    for name in ("constraints.txt", "results/digits/new.csv"):
        write(clone, {name: "x"})
        with pytest.raises(archive.ArchiveError, match=f"not committed: .*{name}; an archive holds what is committed"):
            archive.write({}, tmp_path / "b.zip")
        git(clone, "add", "-A")
        git(clone, "commit", "-q", "-m", "x")
    monkeypatch.setattr(book, "why_stale", lambda pages: "stale: 05_sensnorm: seeds: 5 → 2")
    with pytest.raises(archive.ArchiveError, match="the book is stale: 05_sensnorm: .*; run: sparselib reproduce"):
        archive.write({}, tmp_path / "b.zip")
    monkeypatch.setattr(project, "root", lambda: unpacked)
    with pytest.raises(archive.ArchiveError, match="an archive is made in a clone of the project: "):
        archive.write({}, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_the_command_line_checks_an_archive_first(unpacked, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["sparselib", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    assert call("verify", "--files-only") == (0, f"{len(FILES) + 3} files as archived\n", "")
    (unpacked / "constraints.txt").write_text("torch==1.0\n", encoding="utf-8")
    assert call("verify") == (1, "", "sparselib: not as archived: altered: constraints.txt\n")
    (unpacked / archive.MANIFEST).unlink()
    code, out, err = call("verify", "--files-only")
    assert (code, out) == (2, "") and "--files-only is for an unpacked archive: there is no MANIFEST.sha256" in err
    code, out, err = call("archive", "-o", "book.rar")
    assert (code, err) == (2, "sparselib: output must end in .zip or .tar.gz, got 'book.rar'\n")
