"""Distribution shifts: common corruptions of images, computed here, nothing to download.

The kinds and their strengths follow two benchmarks, CIFAR-10-C (Hendrycks & Dietterich 2019,
https://arxiv.org/abs/1903.12261) and MNIST-C (Mu & Gilmer 2019, https://arxiv.org/abs/1906.02337), at any image size.
They are written afresh, so numbers obtained with them are not comparable to published ones; for those, `load_folder`
reads the benchmarks' own files.
"""

import difflib
from pathlib import Path

import numpy as np
import torch

from sparselib import checks, seeds
from sparselib.data import Samples
from sparselib.robustness.shift_kinds import SHIFTS

KINDS = tuple(SHIFTS)
VALUES_AT_ONCE = 2**22  # bounds the memory that corrupt takes beside x and its result; changes no result
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur"),
    "weather": ("fog", "brightness", "spatter"),
    "digital": ("contrast", "pixelate", "jpeg"),
    "geometry": ("rotate", "shear", "scale", "translate"),
    "drawing": ("stripe", "dotted_line", "zigzag", "canny_edges"),
}


def corrupt(x, kind, severity, *, seed=0):
    """Return the images under one shift.

    Args:
        x: (N, C, H, W) floating, in [0, 1]; C is 1 (grey) or 3 (RGB), H and W at least 8.
        kind: one of KINDS. severity: int 1..5; the mean L2 distance to x grows with it.
        seed: int, at least 0. An image's draw is the same at all five severities, only its strength changes.
    Returns: (N, C, H, W) in [0, 1], of the dtype and on the device of x, without gradient. Image i depends on x[i],
        kind, severity, seed and i alone, to the bit: neither on the other images of the batch nor on the device,
        since all is computed in float64 on the CPU. Another machine or version of a library may round differently.
    Raises: ValueError/TypeError for bad arguments, NaN and infinity included.
    Source: as above; constants, and how lengths scale with the image, in `shift_kinds`.
    """
    checks.choice("kind", kind, KINDS)
    checks.integer("severity", severity, 1, 5)
    checks.integer("seed", seed, low=0)
    checks.images(x, unit_range=True)
    channels, *size = x.shape[1:]
    if channels not in (1, 3) or min(size) < 8:
        raise ValueError(f"x must have 1 or 3 channels and at least 8×8 pixels, got shape {tuple(x.shape)}")
    clean = x.detach().cpu().double().contiguous().numpy()  # sums depend on the layout in the last bit
    shifted = np.empty_like(clean)
    step = max(1, VALUES_AT_ONCE // (channels * size[0] * size[1]))
    for start in range(0, len(x), step):
        part = clean[start : start + step]
        # Lazy: a kind without randomness draws no generator.
        rngs = (seeds.numpy_generator(seed, "shift", kind, start + i) for i in range(len(part)))
        shifted[start : start + step] = SHIFTS[kind](part, severity - 1, rngs)
    return torch.from_numpy(shifted.clip(0, 1)).to(x)


def load_folder(path, kind, severity=None, *, like=None):
    """Return the Samples of one shift of CIFAR-10-C or MNIST-C, as published, from the disk.

    Args:
        path: the unpacked folder. CIFAR-10-C (CIFAR-100-C, …): <kind>.npy, uint8 (5·N, H, W, C), the five severities
            one after the other, and labels.npy (5·N,). MNIST-C: <kind>/test_images.npy, uint8 (N, H, W, C), and
            <kind>/test_labels.npy (N,).
        kind: as the file is called, or one of KINDS; "jpeg" also finds CIFAR-10-C's "jpeg_compression".
        severity: int 1..5 for CIFAR-10-C; None for MNIST-C, which has one strength only.
        like: clean Samples of the same data set, which give the names of the classes; default: the label numbers.
    Returns: Samples named "<folder>/<kind>" or "<folder>/<kind>/<severity>", in the order of the files.
    Raises: FileNotFoundError, saying where it looked and what is there; ValueError for files of another form. Nothing
        is unpickled.
    Source: https://zenodo.org/record/2535967 (CIFAR-10-C), https://zenodo.org/record/3239543 (MNIST-C).
    """
    path = Path(path).expanduser().resolve()
    stems = [kind, "jpeg_compression"] if kind == "jpeg" else [kind]
    found = _corruptions_in(path)
    stem = next((s for s in stems if s in found), None)
    if stem is None:
        close = difflib.get_close_matches(str(kind), found, n=3, cutoff=0.5)
        hint = "; did you mean " + " or ".join(map(repr, close)) + "?" if close else ""
        raise FileNotFoundError(
            f"no {kind}.npy (CIFAR-10-C) and no {kind}/test_images.npy (MNIST-C) in {path}{hint}"
            f" (there: {', '.join(found) or 'neither'})"
        )
    name = f"{path.name}/{stem}"
    if found[stem] == "severities":
        checks.integer("severity", severity, 1, 5)
        images, labels = _arrays(path / f"{stem}.npy", path / "labels.npy")
        if len(images) % 5:
            raise ValueError(f"{path / stem}.npy must hold five severities of one length, got {len(images)} images")
        part = slice((severity - 1) * len(images) // 5, severity * len(images) // 5)
        images, labels, name = images[part], labels[part], f"{name}/{severity}"
    elif severity is not None:
        raise ValueError(f"severity must be None for MNIST-C, which has one strength only, got {severity!r}")
    else:
        images, labels = _arrays(path / stem / "test_images.npy", path / stem / "test_labels.npy")
    return _samples(images, labels, name, like)


def _corruptions_in(path):
    """Return {name: "severities" for CIFAR-10-C's form, "one" for MNIST-C's} of what the folder holds."""
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}")
    found = {f.parent.name: "one" for f in sorted(path.glob("*/test_images.npy"))}
    return found | {f.stem: "severities" for f in sorted(path.glob("*.npy")) if f.name != "labels.npy"}


def _arrays(*files):
    """Return the images (N, H, W, C) and labels (N,) of two files, memory-mapped: only what is used is read."""
    arrays = []
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"no file {file}, which must lie beside the others")
        try:
            arrays.append(np.load(file, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"cannot read {file}: {error}") from error
    images, labels = arrays
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"{files[0]} must be uint8 (N, H, W, 1 or 3), got {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or (len(labels) and labels.min() < 0):
        raise ValueError(f"{files[1]} must be integers ≥ 0 ({len(images)},), got {labels.dtype} {labels.shape}")
    return images, labels


def _samples(images, labels, name, like):
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous().float() / 255
    y = torch.from_numpy(labels.astype(np.int64))
    count = int(y.max()) + 1 if len(y) else 0
    if like is None:
        return Samples(x, y, tuple(str(i) for i in range(count)), name)
    if like.x.shape[1:] != x.shape[1:]:
        raise ValueError(f"like must have images of shape {tuple(x.shape[1:])}, got {tuple(like.x.shape[1:])}")
    if len(like.classes) < count:
        raise ValueError(f"like must have all classes of the files, {count} at least, got {len(like.classes)}")
    return Samples(x, y, like.classes, name)
