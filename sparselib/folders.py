"""Folders of images as one tensor: <path>/{train,test}/<class>/<image>.

One look at the headers of both splits decides what all images are: their classes, their one size, and grey or colour
(grey where every image is stored as grey). Files are read as their authors meant them: turned as EXIF says, what is
transparent on white, 16 bits scaled to 8. Hidden files and folders, such as .ipynb_checkpoints, do not count.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "La", "I", "F")  # modes of Pillow; 16 bits have names that begin with I;16
LARGEST = 2**24  # pixels of one image
MANY = 5000  # images, from which on a bar shows the progress


def read(path: Path, split: str) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Return the images of a split, uint8 (N, C, H, W), their labels int64 (N,), and the names of the classes.

    Raises: FileNotFoundError for a split or a class without images; ValueError naming the file and the reason for what
        cannot be read, and for classes or sizes that differ, within the split or from the other one.
    """
    found = {name: _classes(path / name) for name in ("train", "test") if name == split or (path / name).is_dir()}
    if len({tuple(classes) for classes in found.values()}) > 1:
        differ = sorted(set(found["train"]) ^ set(found["test"]))
        raise ValueError(f"train and test must hold the same classes, only one of them has {', '.join(differ)}")
    files = {name: [file for files in classes.values() for file in files] for name, classes in found.items()}
    everything = files[split] + [file for name in files if name != split for file in files[name]]
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(_header, everything))
        (size, _), first = headers[0], everything[0]
        for (other, _), file in zip(headers, everything, strict=True):
            if other != size:
                raise ValueError(f"all images must share one size: {_shown(file)} is {other}, {_shown(first)} {size}")
        channels = 1 if all(grey for _, grey in headers) else 3
        pixels = np.empty((len(files[split]), *size, channels), np.uint8)
        rows = enumerate(files[split])
        bar = tqdm(desc="images", total=len(pixels), disable=len(pixels) < MANY, leave=False)
        for _ in pool.map(lambda item: _fill(pixels, *item), rows):
            bar.update()
        bar.close()
    labels = [label for label, files in enumerate(found[split].values()) for _ in files]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(labels), tuple(found[split])


def _classes(root):
    """Return {class: its image files}, both in order."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {_shown(root)}; expected {{train,test}}/<class>/<image>")
    classes = {}
    for folder in sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")):
        if not _shown(folder.name).isprintable() or _shown(folder.name) != folder.name:
            raise ValueError(f"the name of a class must be readable UTF-8, got {_shown(folder)!r}")
        files = []
        for place, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            files += [os.path.join(place, name) for name in sorted(names) if not name.startswith(".")]
        classes[folder.name] = [file for file in files if file.lower().endswith(SUFFIXES)]
        if not classes[folder.name]:
            raise FileNotFoundError(f"no image in {_shown(folder)} (allowed: {', '.join(SUFFIXES)})")
    if not classes:
        raise FileNotFoundError(f"no folder of a class in {_shown(root)}; expected {{train,test}}/<class>/<image>")
    return classes


@contextmanager
def _opened(file):
    """Open an image. Only regular files are: a pipe would never end."""
    if not os.path.isfile(file):
        raise ValueError("it is not a regular file")
    # Not by its path: Pillow would map a plain TIFF into memory, and garble it where it is to be turned.
    with open(file, "rb") as stream, Image.open(stream) as image:
        if image.width * image.height > LARGEST:
            raise ValueError(f"it has {image.width} × {image.height} pixels, more than {LARGEST}")
        yield image


def _naming(function):
    """Let a function of a file say which one it could not read, whatever Pillow raised."""

    def named(*arguments):
        try:
            return function(*arguments)
        except Exception as error:  # of many kinds, for damaged files
            raise ValueError(f"cannot read the image {_shown(arguments[-1])}: {error}") from error

    return named


@_naming
def _header(file):
    with _opened(file) as image:
        # By a quarter: height and width change places. TIFF files are turned by their decoder, size included.
        turned = "exif" in image.info and image.getexif().get(0x0112, 1) >= 5
        size = (image.width, image.height) if turned else (image.height, image.width)
        return size, image.mode in GREY or image.mode.startswith("I;16")


@_naming
def _fill(pixels, row, file):
    with _opened(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            values = np.asarray(image).astype(np.float64)
            top, said = (1, "[0, 1]") if image.mode == "F" else (2**16 - 1, "0 … 65535")
            if not (values.min() >= 0 and values.max() <= top):  # NaN neither
                raise ValueError(f"its values must lie in {said}, got {values.min():g} to {values.max():g}")
            pixels[row] = np.rint(values * (255 / top)).astype(np.uint8)[..., None]
            return
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        array = np.asarray(image.convert("L" if pixels.shape[-1] == 1 else "RGB"))
        pixels[row] = array if array.ndim == 3 else array[..., None]


def _shown(path):
    return os.fsencode(path).decode(errors="backslashreplace")
