"""Labelled images and outliers, as plain tensors in [0, 1]: `load` a data set, or what does not belong to it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from sparselib import checks, folders, seeds
from sparselib.registry import Registry
from sparselib.vision import torchvision

TORCHVISION = {
    "mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN",
}  # fmt: skip
NAMES = ("digits", *TORCHVISION)
# torchvision checks the other data sets itself. Files of other sizes are other data, and their owner's affair.
MNIST_FINGERPRINTS = {
    60_000: "de4975e166fd907dcc9694a6dc5c22fd9b9b72e7a78ee44f18e346de7e79f142",
    10_000: "1dd56a4e9370c57c2ff7ea349fff6db3437b267e67a0daf27baf45ad88aa4789",
}
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Samples:
    """Images with labels: `x` (N, C, H, W) in [0, 1], `y` int64 (N,), `classes` the label names in order.

    Outliers have y = -1 and no classes. `fingerprint` is the sha256 of the bytes of x and y and the class names.
    Raises: ValueError or TypeError for images, labels and classes that are not as said here.
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        checks.images(self.x, unit_range=True)
        outliers = isinstance(self.y, torch.Tensor) and len(self.y) == len(self.x) and bool((self.y == -1).all())
        if not isinstance(self.classes, tuple) or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be a tuple of different names, got {self.classes!r}")
        if self.classes or not outliers:
            checks.labels(self.y, self.x, classes=len(self.classes))

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.x.shape), self.classes)).encode())
        for tensor in (self.x, self.y):
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()

    def take(self, index: slice | torch.Tensor) -> Self:
        """Return the samples at `index` (a slice, or an int64 or bool tensor)."""
        return replace(self, x=self.x[index], y=self.y[index])

    @checks.typed
    def only(self, classes: Sequence[str]) -> Self:
        """Return the samples of the named `classes`, relabelled 0, 1, … in the order given."""
        if isinstance(classes, str) or not isinstance(classes, Sequence) or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be different names, got {classes!r}")
        for name in classes:
            checks.choice("classes entry", name, self.classes)
        new_label = torch.tensor([classes.index(c) if c in classes else -1 for c in self.classes])
        y = new_label[self.y]
        return replace(self, x=self.x[y >= 0], y=y[y >= 0], classes=tuple(classes))

    @checks.typed
    def split(self, fraction: float, *, seed: int = 0) -> tuple[Self, Self]:
        """Return two disjoint parts: a random `fraction` in (0, 1) of the samples, and the rest."""
        checks.number("fraction", fraction, 0, 1, low_open=True, high_open=True)
        order = torch.randperm(len(self), generator=seeds.generator(seed, "split", self.name))
        cut = round(fraction * len(self))
        return self.take(order[:cut].sort().values), self.take(order[cut:].sort().values)


@checks.typed
def load(
    name: str, split: str = "train", *, root: str | Path | None = None, download: bool = False,
    limit: int | None = None, seed: int = 0,
) -> Samples:  # fmt: skip
    """Return the Samples of one data set.

    Args:
        name: "digits" (8×8 grey, embedded), "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn" (torchvision),
            or "folder:<path>": a tree <path>/{train,test}/<class>/<image>, all images of one size (see `folders`).
        split: "train" or "test". Digits has no official split: within each class every third image is for testing.
        root: folder of the torchvision data; default: $SPARSELIB_DATA, else ./data. download: fetch what is missing.
        limit: keep at most this many samples, drawn by `seed`, in their original order.
    Raises: ValueError for unknown names, FileNotFoundError when the files are not there.
    """
    checks.choice("split", split, SPLITS)
    if limit is not None:
        checks.integer("limit", limit, low=1)
    if _is_folder(name):
        samples = _folder(name, split)
    else:
        checks.choice("dataset", name, NAMES, also=", folder:<path>")
        samples = _digits(split) if name == "digits" else _from_torchvision(name, split, root, download)
    if limit is None or limit >= len(samples):
        return samples
    order = torch.randperm(len(samples), generator=seeds.generator(seed, "limit", name, split))
    return samples.take(order[:limit].sort().values)


def _is_folder(name):
    return isinstance(name, str) and name.startswith("folder:")


def _digits(split):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        chosen[np.flatnonzero(labels == label)[2::3]] = True
    chosen = chosen == (split == "test")
    x = torch.from_numpy(pixels[chosen] / 16).float().view(-1, 1, 8, 8)  # grey levels 0..16
    return Samples(x, torch.from_numpy(labels[chosen]).long(), tuple("0123456789"), "digits")


def _from_torchvision(name, split, root, download):
    root, svhn = Path(root or os.environ.get("SPARSELIB_DATA", "data")).expanduser(), name == "svhn"
    part = {"split": split} if svhn else {"train": split == "train"}
    try:
        raw = getattr(torchvision().datasets, TORCHVISION[name])(root=str(root), download=download, **part)
        pixels, y = torch.as_tensor(raw.data), torch.as_tensor(raw.labels if svhn else raw.targets).long()
        if pixels.ndim == 3:  # grey: (N, H, W)
            pixels = pixels.unsqueeze(1)
        elif pixels.shape[-1] == 3:  # (N, H, W, 3)
            pixels = pixels.permute(0, 3, 1, 2)
        x, classes = pixels.contiguous().float().div_(255), tuple("0123456789" if svhn else raw.classes)
        samples = Samples(x, y, classes, name)
        if name == "mnist" and samples.fingerprint != MNIST_FINGERPRINTS.get(len(samples), samples.fingerprint):
            raise ValueError("their checksum is wrong")
        return samples
    except Exception as error:  # of many kinds: torchvision asserts, parses and unpickles what it finds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"dataset {name!r}: its files are missing or damaged ({reason}); looked in {root.resolve()}."
            ' To get it, remove what is damaged and run: python -c "from sparselib import data; '
            f'data.load({name!r}, root={str(root)!r}, download=True)". To look elsewhere: set root or SPARSELIB_DATA.'
        ) from error


def _folder(name, split):
    path = name.removeprefix("folder:")
    if not path.strip() or "\0" in path:
        raise ValueError(f"dataset must be folder:<path>, got {name!r}")
    try:
        x, y, classes = folders.read(Path(path).expanduser(), split)
    except (ValueError, OSError) as error:
        raise type(error)(f"dataset {name!r}: {error}") from error
    return Samples(x.float().div_(255), y, classes, name)  # in place: one copy


@checks.typed
def balanced(samples: Samples, n: int, *, seed: int = 0) -> Samples:
    """Return about n of the samples, equally many of each class (at least one), drawn by `seed`."""
    checks.integer("n", n, low=1)
    if not len(samples):
        raise ValueError("samples must not be empty")
    order = torch.randperm(len(samples), generator=seeds.generator(seed, "balanced", samples.name))
    share = max(1, n // len(samples.classes))
    chosen = [order[samples.y[order] == label][:share] for label in range(len(samples.classes))]
    return samples.take(torch.cat(chosen).sort().values)


@checks.typed
def overlap(first: Samples, second: Samples) -> int:
    """Return how many images of `first` are, pixel for pixel, among those of `second`."""
    if first.x.shape[1:] != second.x.shape[1:]:
        return 0
    known = {image.numpy().tobytes() for image in second.x}
    return sum(image.numpy().tobytes() in known for image in first.x)


# Outliers: each function takes (like, n, seed, split) and returns x of the shape of like.x, n of them at most.


def _textures(like, n, seed, split):
    """Patches of scikit-learn's two sample photographs (one for train, one for test), at random places and scales."""
    from sklearn.datasets import load_sample_image

    photo = np.array(load_sample_image("china.jpg" if split == "train" else "flower.jpg"))
    photo = torch.from_numpy(photo).permute(2, 0, 1).unsqueeze(0).float() / 255  # (1, 3, 427, 640)
    (height, width), (h, w) = photo.shape[-2:], like.x.shape[-2:]
    rng, patches = seeds.numpy_generator(seed, "textures", split), []
    for _ in range(n):
        zoom = min(rng.uniform(1, 8), min(height / h, width / w))
        ph, pw = int(h * zoom), int(w * zoom)
        top, left = rng.integers(height - ph + 1), rng.integers(width - pw + 1)
        patches.append(_resized(photo[..., top : top + ph, left : left + pw], (h, w)))
    return _recoloured(torch.cat(patches), like.x.shape[1])


def _uniform(like, n, seed, split):
    return torch.rand(n, *like.x.shape[1:], generator=seeds.generator(seed, "uniform", split))


def _gaussian(like, n, seed, split):
    """Independent pixels with the mean and deviation of `like`, clipped to [0, 1]."""
    noise = torch.randn(n, *like.x.shape[1:], generator=seeds.generator(seed, "gaussian", split))
    return (like.x.mean() + like.x.std() * noise).clamp(0, 1)


def _permuted(like, n, seed, split):
    """Each image with its pixels in an order of its own (the same for all channels): the histogram stays."""
    rng = seeds.generator(seed, "permuted", split)
    x = _drawn(like, n, rng).flatten(2)  # (n, C, HW)
    order = torch.rand(len(x), 1, x.shape[2], generator=rng).argsort(-1)
    return x.gather(2, order.expand_as(x)).unflatten(2, like.x.shape[2:])


def _inverted(like, n, seed, split):
    return 1 - _drawn(like, n, seeds.generator(seed, "inverted", split))


def _mixed(like, n, seed, split):
    """The mean of two images of different classes: near the data, yet of no class."""
    rng = seeds.generator(seed, "mixed", split)
    if len(like.y.unique()) < 2:
        raise ValueError("mixed outliers need samples of at least 2 classes")
    first, second = (torch.randint(len(like), (n,), generator=rng) for _ in range(2))
    while len(same := (like.y[first] == like.y[second]).nonzero().squeeze(1)):
        second[same] = torch.randint(len(like), (len(same),), generator=rng)
    return (like.x[first] + like.x[second]) / 2


def _drawn(like, n, rng):
    """n images of `like` in random order; with repeats only when n exceeds their number."""
    rounds = -(-n // len(like))
    return like.x[torch.cat([torch.randperm(len(like), generator=rng) for _ in range(rounds)])[:n]]


SYNTHETIC = Registry("sparselib.outliers", {
    "textures": _textures, "uniform": _uniform, "gaussian": _gaussian, "permuted": _permuted, "inverted": _inverted,
    "mixed": _mixed,
})  # fmt: skip
OUTLIERS = (*SYNTHETIC.own, "heldout")
register_outliers = SYNTHETIC.register


@checks.typed
def outliers(
    name: str, like: Samples, *, n: int | None = None, seed: int = 0, split: str = "test",
    root: str | Path | None = None, download: bool = False,
) -> Samples:  # fmt: skip
    """Return Samples that do not belong to the data set of `like`, in the shape of like.x, with y = -1.

    Args:
        name: "textures", "uniform", "gaussian", "permuted", "inverted", "mixed", or one added by `register_outliers`;
            "heldout": the classes of the data set that `like` leaves out (see `Samples.only`); or any data set of
            `load`, resized and recoloured.
        like: the in-distribution Samples. n: how many; default len(like), or as many as the data set has.
        split: of which split heldout, textures and data sets are taken; train and test never share an image.
    Raises: ValueError for unknown names, an empty `like`, or the data set of `like` itself.
    """
    checks.choice("split", split, SPLITS)
    if not len(like):
        raise ValueError("like must not be empty")
    n = len(like) if n is None else checks.integer("n", n, low=0)
    if name in SYNTHETIC:
        x = SYNTHETIC[name](like, n, seed, split)
        if not isinstance(x, torch.Tensor) or x.shape[1:] != like.x.shape[1:] or len(x) > n:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(f"outliers {name!r} must be {n} images of shape {tuple(like.x.shape[1:])}, got {got}")
    else:
        if not _is_folder(name):
            checks.choice("outliers", name, (*SYNTHETIC, "heldout", *NAMES), also=", folder:<path>")
        if name == like.name:
            raise ValueError(f"outliers must come from another data set than like, got {name!r} for both")
        source = load(like.name if name == "heldout" else name, split, root=root, download=download)
        if name == "heldout":
            source = source.only([c for c in source.classes if c not in like.classes])
            if not len(source):
                raise ValueError(f"heldout: like has all classes of {like.name!r}; keep some out with like.only(...)")
        order = torch.randperm(len(source), generator=seeds.generator(seed, "outliers", name, split))
        x = _recoloured(_resized(source.x[order[:n]], like.x.shape[-2:]), like.x.shape[1])
    return Samples(x.contiguous(), torch.full((len(x),), -1), (), name)


def _resized(x, size):
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", antialias=True).clamp(0, 1)


def _recoloured(x, channels):
    if x.shape[1] == channels:
        return x
    if channels == 1:  # luminance, ITU-R BT.601
        return (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    return x[:, :1].expand(-1, channels, -1, -1)
