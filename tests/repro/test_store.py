import json
import multiprocessing
import os
import time

import pytest
import torch

from sparselib import models
from sparselib.repro.store import FORMAT, Store, StoreError

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


def test_another_layout_is_left_alone(tmp_path):
    (tmp_path / "format").write_text("99\n")
    with pytest.raises(StoreError, match=f"layout '99', this version writes '{FORMAT}'; it is left as it is"):
        Store(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["format"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        Store(tmp_path / "file" / "store")


def test_a_write_that_fails_leaves_no_trace(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store.put("w", "k", RECORD)
    before = sorted(p for p in store.folder.rglob("*"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("w", "k2", RECORD)
    assert sorted(p for p in store.folder.rglob("*")) == before and store.get("w", "k")


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
