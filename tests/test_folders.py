"""Folders of images, as people have them: mixed, hidden, damaged, in every format."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sparselib import data, folders

SHADES = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.fixture
def tree(tmp_path):
    """Two grey images of two classes in both splits."""
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                Image.fromarray(SHADES).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def load(tree, split="train"):
    return data.load(f"folder:{tree}", split)


def bomb(side):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_hidden_files_and_folders_do_not_count(tree):
    for place in (tree / "train" / ".ipynb_checkpoints", tree / "train" / "a" / ".ipynb_checkpoints"):
        place.mkdir()
        Image.fromarray(SHADES).save(place / "0-checkpoint.png")
    (tree / "train" / "a" / "._0.png").write_bytes(b"\0\5\x16\7Mac OS X")
    (tree / "train" / "a" / "notes.txt").write_text("no image", encoding="utf-8")
    (tree / "train" / "readme.txt").write_text("no class", encoding="utf-8")
    samples = load(tree)
    assert samples.classes == ("a", "b") and samples.y.tolist() == [0, 0, 1, 1]
    assert torch.equal(samples.x[0, 0], torch.from_numpy(SHADES).float() / 255)


def test_one_split_decides_for_both(tree):
    assert load(tree).x.shape == (4, 1, 8, 8)
    Image.fromarray(np.stack([SHADES, SHADES, 255 - SHADES], 2)).save(tree / "test" / "b" / "1.png")
    assert load(tree).x.shape == load(tree, "test").x.shape == (4, 3, 8, 8)
    grey = load(tree).x
    assert torch.equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (lambda d: (d / "train" / "c").mkdir(), FileNotFoundError, "no image in .*train/c"),
        (
            lambda d: os.rename(d / "test" / "a", d / "test" / "c"),
            ValueError,
            "same classes, only one of them has a, c",
        ),
        (lambda d: Image.new("L", (8, 9)).save(d / "test" / "b" / "9.png"), ValueError, r"test/b/9.png is \(9, 8\)"),
        (lambda d: (d / "train" / "a" / "0.png").write_bytes(b""), ValueError, "cannot read the image .*a/0.png"),
        (
            lambda d: (d / "test" / "a" / "0.png").write_text("version https://git-lfs", encoding="utf-8"),
            ValueError,
            "test/a/0.png",
        ),
        (lambda d: (d / "train" / "a" / "0.png").write_bytes(bomb(30_000)), ValueError, "a/0.png: .*900000000 pixels"),
        (lambda d: (d / "train" / "a" / "0.png").write_bytes(bomb(5_000)), ValueError, "5000 × 5000 pixels, more than"),
        (
            lambda d: os.symlink(d / "absent.png", d / "train" / "a" / "5.png"),
            ValueError,
            "5.png: .*not a regular file",
        ),
        (lambda d: (d / "train" / "a" / "6.png").mkdir(), type(None), ""),
        (lambda d: os.symlink(d / "train", d / "train" / "a" / "loop"), type(None), ""),
        (lambda d: os.rename(d / "train" / "a", os.fsencode(d / "train") + b"/\xff"), ValueError, r"UTF-8.*xff"),
        (
            lambda d: os.rename(d / "train" / "a" / "0.png", os.fsencode(d / "train" / "a") + b"/\xff.png"),
            type(None),
            "",
        ),
    ],
)
def test_what_is_wrong_is_named(tree, spoil, kind, said):
    spoil(tree)
    if kind is type(None):
        assert len(load(tree)) == 4
        return
    with pytest.raises(kind, match=said):
        load(tree)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_opened(tree):
    os.mkfifo(tree / "train" / "a" / "7.png")
    with pytest.raises(ValueError, match="7.png: it is not a regular file"):
        load(tree)


def test_damage_within_the_pixels_is_named(tree):
    file = tree / "train" / "a" / "0.png"
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the image .*a/0.png"):
        load(tree)


def test_an_image_that_vanishes_while_read_is_named(tree, monkeypatch):
    header = folders._header

    def and_gone(file):
        found = header(file)
        if file.endswith("1.png"):
            os.remove(file)
        return found

    monkeypatch.setattr(folders, "_header", and_gone)
    with pytest.raises(ValueError, match="cannot read the image .*1.png: it is not a regular file"):
        load(tree)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(SHADES.astype(np.uint16) * 257), SHADES / 255),
        (Image.fromarray(SHADES.astype(np.int32) * 257), SHADES / 255),
        (Image.fromarray(SHADES.astype(np.float32) / 255), SHADES / 255),
        (Image.fromarray(SHADES > 100), SHADES > 100),
        (Image.fromarray(np.stack([SHADES, np.full((8, 8), 0, np.uint8)], 2), "LA"), np.ones((8, 8))),
    ],
    ids=["16 bits", "int32", "float", "1 bit", "transparent"],
)
def test_every_depth_keeps_its_range(tree, image, expected):
    for split in ("train", "test"):
        for name in "ab":
            for i in range(2):
                (tree / split / name / f"{i}.png").unlink()
                image.save(tree / split / name / f"{i}.tif")
    found = load(tree).x
    assert found.shape == (4, 1, 8, 8)
    assert (found[0, 0] - torch.as_tensor(np.asarray(expected, dtype=np.float32))).abs().max() <= 0.5 / 255


def test_values_beyond_the_range_are_refused_rather_than_cut(tree):
    Image.fromarray(SHADES.astype(np.float32)).save(tree / "train" / "a" / "2.tif")
    with pytest.raises(ValueError, match=r"2.tif: its values must lie in \[0, 1\], got 0 to 252"):
        load(tree)
    Image.fromarray(np.full((8, 8), 10**6, np.int32)).save(tree / "train" / "a" / "2.tif")
    with pytest.raises(ValueError, match=r"2.tif: its values must lie in 0 … 65535"):
        load(tree)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_are_turned_as_their_camera_says(tree, suffix):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter
    for place in tree.glob("*/*/*.png"):
        place.unlink()
        Image.fromarray(np.vstack([SHADES, SHADES])).save(place.with_suffix(".png"))
    Image.fromarray(np.hstack([SHADES, SHADES])).save(tree / "train" / "a" / f"0.{suffix}", exif=turned)
    if suffix != "png":
        (tree / "train" / "a" / "0.png").unlink()
    x = load(tree).x
    assert x.shape == (4, 1, 16, 8)
    assert torch.equal(x[0, 0], torch.from_numpy(np.rot90(np.hstack([SHADES, SHADES]), -1).copy()).float() / 255)


def test_memory_is_little_more_than_the_images(tree, monkeypatch):
    peak = []
    plain = folders._fill
    monkeypatch.setattr(
        folders, "_fill", lambda pixels, row, file: (peak.append(pixels.nbytes), plain(pixels, row, file))
    )
    samples = load(tree)
    assert max(peak) * 4 == samples.x.nbytes  # held as bytes until all are read
