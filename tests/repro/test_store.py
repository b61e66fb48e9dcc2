import json
import multiprocessing
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from sparselib import models
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
    path = store.folder / "cells" / "w" / f"bad{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    with pytest.warns(UserWarning, match=f"bad{suffix} is damaged or not ours"):
        assert store.get("w", "bad") is None
    assert path.read_bytes() == content and store.get("w", "good") is not None
    store.put("w", "bad", RECORD, net)
    assert store.get("w", "bad") is not None


def test_another_layout_is_kept_ignored_and_told(tmp_path):
    (tmp_path / "format").write_text("99\n")
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "old").write_text("precious")
    with pytest.warns(UserWarning, match=f"layout '99': kept, but not used; those of layout '{FORMAT}' go to"):
        store = Store(tmp_path)
    store.put("w", "k", RECORD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Store(store.folder).get("w", "k"), "workers get this folder, and need not be told again"
    with pytest.warns(UserWarning, match="layout '99'"):
        assert Store(tmp_path).get("w", "k")
    assert (tmp_path / "format").read_text() == "99\n" and (tmp_path / "cells" / "old").read_text() == "precious"
    assert not (tmp_path / "cells" / "w").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
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
    assert sorted(p.name for p in (small_disk / "cells" / "w").iterdir()) == sorted(f"{n}.json" for n in range(number))
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
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert f"cannot write to the store {tmp_path}: [Errno 27] File too large" in done.stdout, done.stderr
    assert [p.name for p in (tmp_path / "cells" / "w").iterdir()] == ["k.json"] and Store(tmp_path).get("w", "k")


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


def test_files_are_json_anyone_can_read(store):
    store.put("w", "k", RECORD)
    saved = json.loads((store.folder / "cells" / "w" / "k.json").read_text())
    assert saved["record"]["rows"] == RECORD["rows"] and len(saved["checksum"]) == 64
