"""The book as one file: what is rendered, the rows behind it, the sources, and a manifest that tells what was altered.

    <name>/ARCHIVE.md         what this is, of which commit
    <name>/MANIFEST.sha256    the checksum of every other file, as `sha256sum -c` reads it
    <name>/html/              the rendered book
    <name>/…                  the project as it was committed: sources, results/, constraints.txt

The same commit and the same rendered book give the same bytes.
"""

import gzip
import io
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import sparselib
from sparselib import checkpoints
from sparselib.repro import book, project
from sparselib.repro.parameters import Parameters
from sparselib.repro.store import sha256

MANIFEST, ABOUT, HTML = "MANIFEST.sha256", "ARCHIVE.md", "html"
SUFFIXES = (".zip", ".tar.gz")
MANY = 10  # files that a message names
TOLD = """# sparselib {version}, archived

The rendered book: open `{html}/index.html`; it needs no network. Its sources, the published rows (`results/`) and the
exact versions of all packages (`constraints.txt`) lie beside it, as of commit `{commit}` of {date}.

`sparselib verify` checks all files against `{manifest}`, then computes a few published rows again; `sha256sum -c
{manifest}` does the first without anything installed. To install, and to compute everything anew, see `README.md`.
"""


class ArchiveError(RuntimeError):
    """The archive cannot be made, or its files are not as archived; the message says why, or names the files."""


def check_name(path: Path) -> Path:
    """Return the path of an archive. Raises ValueError unless it ends as one that can be made."""
    if not path.name.endswith(SUFFIXES) or path.name in SUFFIXES:
        raise ValueError(f"output must end in {' or '.join(SUFFIXES)}, got {path.name!r}")
    return path


def default_path() -> Path:
    """Return where the archive goes if nothing is said."""
    return project.build_folder() / f"sparselib-{sparselib.__version__}.zip"


def write(pages: Mapping[str, type[Parameters]], out: Path) -> Path:
    """Write the archive to `out` (.zip or .tar.gz) in one step, and return its path.

    Raises: ArchiveError where the book is not built, or not of the sources that are committed; ValueError for `out`.
    """
    check_name(out)
    commit = _committed()
    if why := book.why_stale(pages):
        raise ArchiveError(f"the book is {why}; run: sparselib reproduce")
    files, stamp = _sources(commit)
    html = project.build_folder() / "html"
    for path in sorted(html.rglob("*")):
        if path.is_file():
            files[f"{HTML}/{path.relative_to(html).as_posix()}"] = path.read_bytes()
    date = time.strftime("%Y-%m-%d", time.gmtime(stamp))
    about = {"version": sparselib.__version__, "commit": commit, "date": date, "manifest": MANIFEST, "html": HTML}
    files[ABOUT] = TOLD.format(**about).encode()
    files[MANIFEST] = "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files)).encode()
    suffix = next(suffix for suffix in SUFFIXES if out.name.endswith(suffix))
    folder = f"sparselib-{sparselib.__version__}"
    content = {f"{folder}/{name}": files[name] for name in sorted(files)}
    checkpoints.write_atomic(out, (_zip if suffix == ".zip" else _tar)(content, stamp))
    return out


def check(root: Path) -> int | None:
    """Return how many files of an unpacked archive are as archived, None where `root` is no archive.

    What .gitignore names, such as an environment or what was built since, does not count.
    Raises: ArchiveError naming what was altered, what is missing, and what is there besides.
    """
    manifest = root / MANIFEST
    if not manifest.is_file():
        return None
    wanted = _read(manifest)
    here = {name: root / name for name in wanted if (root / name).is_file()}
    altered = [name for name, path in here.items() if sha256(path.read_bytes()) != wanted[name]]
    found = {"altered": altered, "missing": [name for name in wanted if name not in here]}
    found["not of the archive"] = sorted(_others(root, wanted))
    if any(found.values()):
        told = "; ".join(f"{what}: {_named(names)}" for what, names in found.items() if names)
        raise ArchiveError(f"not as archived: {told}")
    return len(wanted)


def _read(manifest):
    """Return {name: checksum}."""
    wanted = {}
    for number, line in enumerate(manifest.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        digest, space, name = line.partition("  ")
        inside = PurePosixPath(name)
        if len(digest) != 64 or not space or inside.is_absolute() or ".." in inside.parts or name in wanted:
            raise ArchiveError(f"{MANIFEST}, line {number}: not a checksum and a file; unpack the archive again")
        wanted[name] = digest
    if not wanted:
        raise ArchiveError(f"{MANIFEST} is empty; unpack the archive again")
    return wanted


def _others(root, wanted):
    """Yield the files that the manifest does not know and .gitignore does not name."""
    ignore = root / ".gitignore"
    lines = ignore.read_text(encoding="utf-8").split() if ignore.is_file() else []
    patterns = [line.strip("/") for line in (*lines, ".git/")]
    folders = [root]
    while folders:
        for path in folders.pop().iterdir():
            name = path.relative_to(root).as_posix()
            if name in wanted or name == MANIFEST or any(fnmatch(path.name, pattern) for pattern in patterns):
                continue
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                yield name


def _named(names):
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(names[:MANY]) + more


def _committed():
    """Return the commit of the project. Raises ArchiveError where there is none, or files differ from it."""
    commit = _git("rev-parse", "HEAD").decode().strip()
    changed = _git("status", "--porcelain", "--untracked-files=no").decode().splitlines()
    changed += _git("status", "--porcelain", "--", "results").decode().splitlines()
    if changed:
        names = sorted({line[3:] for line in changed})
        raise ArchiveError(f"not committed: {_named(names)}; an archive holds what is committed")
    return commit


def _sources(commit):
    """Return {path: content} of the files of a commit, and its time."""
    stamp = int(_git("show", "--no-patch", "--format=%ct", commit))
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as tar:
        members = [member for member in tar if member.isfile()]
        files = {member.name: file.read() for member in members if (file := tar.extractfile(member))}
    if taken := sorted(name for name in files if name in (MANIFEST, ABOUT) or name.startswith(f"{HTML}/")):
        raise ArchiveError(f"the project has files where the archive puts its own: {_named(taken)}")
    return files, stamp


def _git(*arguments):
    try:
        command = ["git", "-c", "core.quotePath=off", "-C", str(project.root()), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ArchiveError(f"an archive needs git: {error}") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["git failed"]
        raise ArchiveError(f"an archive is made in a clone of the project: {told[-1]}")
    return done.stdout


def _zip(files, stamp):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, time.gmtime(max(stamp, 315532800))[:6])  # zip begins in 1980
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, _mode(name) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _tar(files, stamp):
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=stamp) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), stamp, _mode(name)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _mode(name):
    return 0o755 if name.endswith(".ci/run") else 0o644
