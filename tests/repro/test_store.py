import errno
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
import toy

from sparselib import models
from sparselib.repro import dependencies
from sparselib.repro.store import FORMAT, Store, StoreError

ROOT = Path(__file__).resolve().parents[2]
RECORD = {"rows": [{"value": 0.1 + 0.2}], "parts": {}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_is_put_is_got_bit_for_bit(store):
    net = models.build("convnet", in_channels=1, num_classes=3, image_size=8, width=4).eval()
    store.put("w", "k", RECORD, net)
    assert store.get("w", "k")["rows"] == RECORD["rows"]
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(store.model("w", "k")(x), net(x))
    assert store.get("w", "other") is None
    assert [r["rows"] for r in store.relatives("w")] == [RECORD["rows"]]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"", lambda c: b"{}", lambda c: c.replace(b"0", b"1")])
def test_damage_is_told_and_touches_nothing_else(store, suffix, damage):
    net = models.build("convnet", in_channels=1, num_classes=3, image_size=8, width=4)
    for key in ("good", "bad"):
        store.put("w", key, RECORD, net)
    path = store.folder / "steps" / "w" / f"bad{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    with pytest.warns(UserWarning, match=f"bad{suffix} is damaged or not ours"):
        assert store.get("w", "bad") is None
    assert path.read_bytes() == content and store.get("w", "good") is not None
    store.put("w", "bad", RECORD, net)
    assert store.get("w", "bad") is not None


def test_a_record_under_another_name_is_not_that_step(store):
    store.put("w", "one", RECORD)
    store.put("v", "one", RECORD)
    for other in ("w/two", "v/one"):
        (store.folder / "steps" / f"{other}.json").write_bytes((store.folder / "steps" / "w" / "one.json").read_bytes())
        with pytest.warns(UserWarning, match=f"{other}.json is damaged or not ours"):
            assert store.get(*other.split("/")) is None


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("make", toy.ODD)
def test_what_is_no_file_is_damaged_and_nothing_waits(store, make, suffix):
    store.put("w", "k", RECORD, models.build("convnet", in_channels=1, num_classes=3, image_size=8, width=4))
    path = store.folder / "steps" / "w" / f"k{suffix}"
    path.unlink()
    make(path)
    with pytest.warns(UserWarning, match=f"k{suffix} is damaged or not ours"):
        assert store.get("w", "k") is None


def test_huge_files_are_not_read(store):
    store.put("w", "k", RECORD)
    os.truncate(store.folder / "steps" / "w" / "k.json", 2**40)  # of holes
    with pytest.warns(UserWarning, match="damaged or not ours"):
        assert store.get("w", "k") is None


def test_a_damaged_list_of_code_is_written_anew(store):
    symbols = {"a.b": "1", "a.c": "2"}
    digest = dependencies.digest(symbols)
    store.put_code(digest, symbols)
    path = store.folder / "code" / f"{digest}.json"
    for damage in (b"", b"[]", b'{"a.b": "1"}', b'{"a.b": {}}', b"[" * 10**5):
        path.write_bytes(damage)
        assert Store(store.folder).code(digest) is None
        Store(store.folder).put_code(digest, symbols)
        assert store.code(digest) == symbols


def test_another_layout_is_kept_ignored_and_told(tmp_path):
    (tmp_path / "format").write_text("99\n", encoding="utf-8")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "old").write_text("precious", encoding="utf-8")
    with pytest.warns(UserWarning, match=f"layout '99': kept, but not used; those of layout '{FORMAT}' go to"):
        store = Store(tmp_path)
    store.put("w", "k", RECORD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Store(store.folder).get("w", "k"), "workers get this folder, and need not be told again"
    with pytest.warns(UserWarning, match="layout '99'"):
        assert Store(tmp_path).get("w", "k")
    assert (tmp_path / "format").read_bytes().strip() == b"99"
    assert (tmp_path / "steps" / "old").read_bytes() == b"precious"
    assert not (tmp_path / "steps" / "w").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a file system needs more rights")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_clearly_and_leaves_no_trace(small_disk):
    store, number = Store(small_disk), 0
    big = {**RECORD, "rows": ["x" * 8000]}
    with pytest.raises(StoreError, match="cannot write to the store .*No space left"):
        for number in range(20):
            store.put("w", str(number), big)
    assert 3 < number < 19
    assert sorted(p.name for p in (small_disk / "steps" / "w").iterdir()) == sorted(f"{n}.json" for n in range(number))
    assert all(store.get("w", str(n)) for n in range(number)), "what was there is whole"


def test_a_file_too_large_for_the_disk_is_refused_as_a_whole(tmp_path):
    script = (
        "import resource, sys; from sparselib import models; from sparselib.repro.store import *\n"
        "store = Store(sys.argv[1]); store.put('w', 'k', {'rows': []})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "net = models.build('convnet', in_channels=1, num_classes=3, image_size=8, width=16)\n"
        "try: store.put('w', 'k2', {'rows': []}, net)\n"
        "except StoreError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert f"cannot write to the store {tmp_path}: [Errno 27] File too large" in done.stdout, done.stderr
    assert [p.name for p in (tmp_path / "steps" / "w").iterdir()] == ["k.json"] and Store(tmp_path).get("w", "k")


def test_a_disk_that_cannot_be_written_can_still_be_read(small_disk):
    Store(small_disk).put("w", "k", RECORD)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = Store(small_disk)
    assert store.get("w", "k")["rows"] == RECORD["rows"]
    with pytest.raises(StoreError, match="cannot write to the store .*Read-only file system"):
        store.put("w", "k2", RECORD)
    with pytest.raises(StoreError, match="Read-only file system"), store.locked("w", "k2"):
        pass


def _hold(folder, log):
    with Store(folder).locked("w", "k"):
        log.append(("in", time.monotonic()))
        time.sleep(0.3)
        log.append(("out", time.monotonic()))


def test_a_lock_is_held_by_one_process_at_a_time(store):
    with multiprocessing.get_context("spawn").Manager() as manager:
        log = manager.list()
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_hold, args=(store.folder, log)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [what for what, _ in log] == ["in", "out", "in", "out"]


HOLDER = """
import sys, time
from sparselib.repro.store import Store
with Store(sys.argv[1]).locked("w", "k"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store):
    """Another process, which has the lock of the cell (w, k)."""
    command = [sys.executable, "-c", HOLDER, str(store.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_long_wait_is_told_once_with_who_is_waited_for_and_a_killed_process_lets_go(store, holder, monkeypatch):
    monkeypatch.setattr("sparselib.repro.store.PATIENCE", 0.2)
    threading.Timer(1.5, holder.kill).start()
    with pytest.warns(UserWarning) as told, store.locked("w", "k"):
        assert holder.wait(10) != 0
    (one,) = told
    assert str(store.folder / "locks" / "w-k") in str(one.message)
    assert f"process {holder.pid} on " in str(one.message) and one.filename == __file__


def test_a_lock_that_is_let_go_leaves_no_name_behind(store):
    with store.locked("w", "k"):
        assert f"process {os.getpid()} on " in (store.folder / "locks" / "w-k.holder").read_text(encoding="utf-8")
    assert not (store.folder / "locks" / "w-k.holder").exists()


def test_a_link_in_place_of_a_lock_is_refused(store, tmp_path):
    (tmp_path / "elsewhere").write_text("precious", encoding="utf-8")
    (store.folder / "locks").mkdir()
    try:
        (store.folder / "locks" / "w-k").symlink_to(tmp_path / "elsewhere")
        (store.folder / "locks" / "w-k2.holder").symlink_to(tmp_path / "elsewhere")
    except OSError:
        pytest.skip("links need more rights")
    with pytest.raises(StoreError, match=r"cannot lock steps of the store .*w-k"), store.locked("w", "k"):
        pass
    with store.locked("w", "k2"):
        pass
    assert (tmp_path / "elsewhere").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(store, monkeypatch, number):
    def refused(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refused)
    message = f"cannot lock steps of the store {re.escape(str(store.folder))}: .*no locks here"
    with pytest.raises(StoreError, match=message), store.locked("w", "k"):
        pass


def test_a_file_that_others_look_into_is_replaced_once_they_are_done(store, monkeypatch):
    replace, refused = os.replace, [PermissionError("in use"), PermissionError("in use")]

    def busy(*paths):
        if refused:
            raise refused.pop()
        replace(*paths)

    monkeypatch.setattr(os, "replace", busy)
    store.put("w", "k", RECORD)
    assert store.get("w", "k")["rows"] == RECORD["rows"]


def test_files_are_json_anyone_can_read(store):
    store.put("w", "k", RECORD)
    saved = json.loads((store.folder / "steps" / "w" / "k.json").read_text(encoding="utf-8"))
    assert saved["record"]["rows"] == RECORD["rows"] and len(saved["checksum"]) == 64
