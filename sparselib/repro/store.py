"""Computed results as plain files: tidy rows as JSON, networks as safetensors. Nothing on disk is ever unpickled.

    store/format                         the version of this layout
    store/steps/<what>/<key>.json        rows, provenance and a checksum
    store/steps/<what>/<key>.safetensors the network, where the step makes one
    store/code/<digest>.json             the digests of the definitions behind a `code` digest

<what> names the typed parameters alone; <key> also the data, code and package versions. So all results for the same
question lie side by side, and `status` can tell what differs.

A folder that holds another layout is left as it is; this one then lives in its subfolder layout-<version>.
"""

import hashlib
import json
import os
import re
import socket
import warnings
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sparselib import checkpoints
from sparselib.repro import dependencies

FORMAT = "3"
PATIENCE = 10.0  # seconds to wait for a lock before saying so


class StoreError(RuntimeError):
    """The store cannot be used; the message says why and what to do."""


class Store:
    """Results under one folder. Safe for several processes at once: writes are atomic, steps are locked."""

    def __init__(self, folder):
        self.folder, self._codes = Path(folder), set()
        with self._told("use"):
            while (found := self._layout()) not in (FORMAT, None):
                own = self.folder / f"layout-{FORMAT}"
                kept = f"{self.folder} holds results of layout {found!r}: kept, but not used"
                warnings.warn(f"{kept}; those of layout {FORMAT!r} go to {own}", stacklevel=2)
                self.folder = own
            if found is None:
                checkpoints.write_atomic(self.folder / "format", FORMAT.encode() + b"\n")

    @contextmanager
    def _told(self, doing):
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot {doing} the store {self.folder}: {error}") from error

    def _layout(self):
        """Return the version of the layout in the folder, None for a new one."""
        try:
            return checkpoints.read_bytes(self.folder / "format").decode(errors="replace").strip()[:20]
        except FileNotFoundError:
            return None

    def _path(self, what, key, suffix):
        return self.folder / "steps" / what / f"{key}{suffix}"

    def holds(self, what, key):
        """Return whether there is a file for (what, key); `get` tells whether it is sound."""
        return self._path(what, key, ".json").exists()

    def get(self, what, key):
        """Return the record saved under (what, key), or None: not there, or damaged (told in a warning)."""
        record = self._read(self._path(what, key, ".json"))
        if record is None or record["weights"] is None:
            return record
        weights = self._path(what, key, ".safetensors")
        try:
            sound = sha256(checkpoints.read_bytes(weights, most=checkpoints.LARGEST)) == record["weights"]
        except OSError:
            sound = False
        if not sound:
            _warn_damaged(weights)
        return record if sound else None

    def _read(self, path):
        try:
            saved = json.loads(checkpoints.read_bytes(path))
            record = saved["record"]
            if saved["checksum"] != _checksum(path, record):
                raise ValueError("checksum")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            _warn_damaged(path)
            return None
        return record

    def put(self, what, key, record, model=None):
        """Save a record (JSON-like dict) and its network. The record comes last, with the checksums of both."""
        weights = None
        with self._told("write to"):
            if model is not None:
                path = self._path(what, key, ".safetensors")
                checkpoints.save_model(model, path)
                weights = sha256(path.read_bytes())
            record, path = {**record, "weights": weights}, self._path(what, key, ".json")
            _write(path, {"checksum": _checksum(path, record), "record": record})

    def model(self, what, key, *, device="cpu", into=None):
        """Return the network saved under (what, key), in eval mode; `into` as in `checkpoints.load_model`."""
        return checkpoints.load_model(self._path(what, key, ".safetensors"), device=device, into=into)

    def relatives(self, what):
        """Return the readable records with the same parameters, newest first."""
        files = sorted((self.folder / "steps" / what).glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        return [record for record in map(self._read, files) if record is not None]

    def put_code(self, digest, symbols):
        """Save what a `code` digest stands for, once."""
        if digest not in self._codes and self.code(digest) is None:
            with self._told("write to"):
                _write(self.folder / "code" / f"{digest}.json", symbols)
        self._codes.add(digest)

    def code(self, digest):
        """Return the {definition: digest} saved for a `code` digest, or None."""
        try:
            found = json.loads(checkpoints.read_bytes(self.folder / "code" / f"{digest}.json"))
            return found if dependencies.digest(found) == digest else None
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return None

    @contextmanager
    def locked(self, what, key):
        """Hold the right to compute one step; waits while another process has it. A killed process lets go of it."""
        with ExitStack() as stack:
            # Told: a link in its place, no right to write, a network file system without locks.
            with self._told("lock steps of"):
                stack.enter_context(locked(self.folder / "locks" / f"{what}-{key}", stacklevel=6))
            yield


@contextmanager
def locked(path: Path, stacklevel: int = 3):
    """Hold the lock that is this file; a wait of over PATIENCE seconds is told once, with who is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_name(f"{path.name}.holder")  # tells those who wait
    # Where files cannot be locked, a mere file in place of a lock would outlive a killed process.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        warnings.warn(f"still waiting for {path}, which is held by {_named_in(holder)}", stacklevel=stacklevel)
        lock.acquire()
    try:
        with suppress(OSError):
            checkpoints.write_atomic(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _named_in(holder):
    try:
        link = holder.is_symlink()  # is not followed
        named = "" if link else checkpoints.read_bytes(holder).decode(errors="replace")[:200]
    except OSError:
        named = ""
    process = re.fullmatch(r"process (\d+) on (.+)", named)
    if not process:
        return "another process"
    stopped = process[2] == socket.gethostname() and _is_stopped(process[1])
    return f"{named} (stopped: kill -CONT {process[1]} lets it go on)" if stopped else named


def _is_stopped(process):
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _write(path, content):
    checkpoints.write_atomic(path, json.dumps(content, indent=1, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """Return the checksum that files are known by."""
    return hashlib.sha256(content).hexdigest()


def _checksum(path, record):
    """Return the checksum of a record in its place: under another name it is that of another step."""
    return sha256(json.dumps([path.parent.name, path.stem, record], sort_keys=True).encode())


def _warn_damaged(path):
    warnings.warn(f"{path} is damaged or not ours: it counts as missing and will be recomputed", stacklevel=3)
