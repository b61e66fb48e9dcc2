"""Distribution shifts: common corruptions of images, computed here, nothing to download.

Kinds and strengths follow CIFAR-10-C (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261) for noise, blur,
weather and digital kinds, and MNIST-C (Mu & Gilmer 2019, https://arxiv.org/abs/1906.02337) for geometry and drawing,
written afresh for any image size: numbers are not comparable to published ones. Docstrings say where a kind departs.

A constant that is a length counts pixels of the benchmark's images, 32 or 28 wide, and scales with the shorter side:
a kind spoils the same share of a picture at any size. Counts, angles and grey levels do not scale. An image is read as
the bilinear surface through its pixels, so a shift of a quarter of a pixel still does something on 8×8.

Each function takes x (N, C, H, W) float64 in [0, 1], the level 0..4 (severity − 1) and an iterable of N random
generators, and returns the shifted images, still to be clipped to [0, 1]. Image i must depend on x[i] and the i-th
generator only, and draw the same at every level, so that severity changes the strength and nothing else.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from sparselib import checks, seeds
from sparselib.registry import Registry

VALUES_AT_ONCE = 2**22  # bounds the memory that corrupt takes beside x and its result; changes no result


@checks.typed
def corrupt(x: torch.Tensor, kind: str, severity: int, *, seed: int = 0) -> torch.Tensor:
    """Return the images under one shift.

    Args:
        x: (N, C, H, W) floating, in [0, 1]; C is 1 (grey) or 3 (RGB), H and W at least 8.
        kind: one of KINDS, or added by `register`. severity: int 1..5; the mean L2 distance to x grows with it.
        seed: int, at least 0. An image's draw is the same at all five severities, only its strength changes.
    Returns: (N, C, H, W) in [0, 1], of the dtype and on the device of x, without gradient. Image i depends on x[i],
        kind, severity, seed and i alone, to the bit on one machine, since all is computed in float64 on the CPU.
    Raises: ValueError/TypeError for bad arguments.
    """
    checks.choice("kind", kind, SHIFTS)
    checks.integer("severity", severity, 1, 5)
    checks.integer("seed", seed, low=0)
    checks.images(x, unit_range=True)
    channels, *size = x.shape[1:]
    if channels not in (1, 3) or min(size) < 8:
        raise ValueError(f"x must have 1 or 3 channels and at least 8×8 pixels, got shape {tuple(x.shape)}")
    shifted = torch.empty_like(x, requires_grad=False, memory_format=torch.contiguous_format)
    step = max(1, VALUES_AT_ONCE // (channels * size[0] * size[1]))
    for start in range(0, len(x), step):
        # Contiguous: sums depend on the layout in the last bit.
        part = x[start : start + step].detach().cpu().double().contiguous().numpy().copy()
        # Lazy: a kind without randomness draws no generator.
        rngs = (seeds.numpy_generator(seed, "shift", kind, start + i) for i in range(len(part)))
        shifted[start : start + step] = torch.from_numpy(SHIFTS[kind](part, severity - 1, rngs).clip(0, 1))
    return shifted


def _gaussian_noise(x, level, rngs):
    """x + σ·N(0, 1)."""
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[level] * np.stack([r.standard_normal(x.shape[1:]) for r in rngs])


def _shot_noise(x, level, rngs):
    """Poisson(c·x) / c: the fewer photons c a pixel counts, the noisier."""
    photons = (500, 250, 100, 75, 50)[level]
    return np.stack([r.poisson(photons * image) for image, r in zip(x, rngs, strict=True)]) / photons


def _impulse_noise(x, level, rngs):
    """Each value is replaced with probability p, by 0 or by 1."""
    draw = np.stack([r.random((2, *x.shape[1:])) for r in rngs])  # (N, 2, C, H, W)
    hit = draw[:, 0] < (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    return np.where(hit, draw[:, 1] < 0.5, x)


def _defocus_blur(x, level, rngs):
    """Mean over a disk (the aperture), then a Gaussian that softens its rim by a fixed number of pixels."""
    radius, rim = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level]
    taps, step = _lattice(x)
    reach = math.ceil(radius * taps + 3 * rim)
    lattice = np.mgrid[-reach : reach + 1, -reach : reach + 1]  # (2, K, K)
    disk = ((lattice**2).sum(0) <= (radius * taps) ** 2).astype(float)
    weights = ndimage.gaussian_filter(disk, rim, mode="constant")
    return _filtered(x, _kernel(step * lattice.reshape(2, -1).T, weights.ravel()))


def _motion_blur(x, level, rngs):
    """Half a Gaussian trailing in one direction, within 45° of horizontal.

    CIFAR-10-C's severities 3 and 4 have the same σ and differ beyond 6σ only, which cannot be seen: here 4 has 2.25.
    """
    taps, step = _lattice(x)
    sigma = (1, 1.5, 2, 2.25, 2.5)[level] * taps
    trail = np.arange(4 * sigma)  # (T,)
    blurred = []
    for image, rng in zip(x, rngs, strict=True):
        angle = rng.uniform(-math.pi / 4, math.pi / 4)
        offsets = np.outer(step * trail, (math.sin(angle), math.cos(angle)))  # (T, 2)
        blurred.append(_filtered(image, _kernel(offsets, np.exp(-((trail / sigma) ** 2) / 2))))
    return np.stack(blurred)


def _zoom_blur(x, level, rngs):
    """Mean of the image and of its enlargements about the centre by 1, 1.01, … up to 1.06 (severity 1) or 1.26 (5)."""
    factors = 1 + 0.01 * np.arange((7, 12, 17, 22, 27)[level])
    total = x.copy()
    for factor in factors:
        total += _sampled(x, *((n - 1) / 2 + (np.arange(n) - (n - 1) / 2) / factor for n in x.shape[2:]))
    return total / (len(factors) + 1)


def _fog(x, level, rngs):
    """(x + c·fog) · max(x) / (max(x) + c), fog a fractal in [0, 1]: value noise on grids of 2, 4, 8, … cells.

    Each finer grid counts 1/decay of the one before, as in CIFAR-10-C; as there, a black image stays black.
    """
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level]
    cells = 2 ** np.arange(1, math.ceil(math.log2(max(x.shape[2:]))) + 1)
    fog = np.zeros((len(x), 1, *x.shape[2:]))
    for cloud, rng in zip(fog[:, 0], rngs, strict=True):
        for octave, n in enumerate(cells):
            grid = rng.uniform(-1, 1, (n + 1, n + 1)) / decay**octave
            cloud += _sampled(grid, *(np.linspace(0, n, size) for size in cloud.shape))
        cloud -= cloud.min()
        cloud /= cloud.max()
    brightest = x.max((1, 2, 3), keepdims=True)
    return (x + amount * fog) * brightest / (brightest + amount)


def _brightness(x, level, rngs):
    """The value of HSV raised by c, hue and saturation kept: x·v'/v with v = max over channels, v' = min(v + c, 1)."""
    value = x.max(1, keepdims=True)
    raised = np.minimum(value + (0.05, 0.1, 0.15, 0.2, 0.3)[level], 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def _contrast(x, level, rngs):
    """mean + c·(x − mean), with the mean of each channel of each image."""
    mean = x.mean((2, 3), keepdims=True)
    return mean + (0.75, 0.5, 0.4, 0.3, 0.15)[level] * (x - mean)


def _pixelate(x, level, rngs):
    """Pixels grouped into c·H × c·W cells, each painted with its mean.

    The grid of cells is laid at random, where CIFAR-10-C starts it at the corner: on a small image the few neighbours
    that share a cell, with probability 1 − c, would otherwise always be the same ones.
    """
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[level]
    painted = []
    for image, rng in zip(x, rngs, strict=True):
        for axis in (1, 2):
            cell = (np.arange(image.shape[axis]) * share + rng.random()).astype(int)  # of each row or column
            _, first, count = np.unique(cell, return_index=True, return_counts=True)
            total = np.moveaxis(np.add.reduceat(image, first, axis), axis, -1)
            image = np.moveaxis(np.repeat(total / count, count, -1), -1, axis)
        painted.append(image)
    return np.stack(painted)


def _jpeg(x, level, rngs):
    """JPEG, written and read by Pillow."""
    quality = (80, 65, 58, 50, 40)[level]
    decoded = []
    for image in (x * 255).round().astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(file))  # (H, W) or (H, W, 3)
        decoded.append(pixels[None] if len(image) == 1 else pixels.transpose(2, 0, 1))
    return np.stack(decoded) / 255


def _rotate(x, level, rngs):
    """Rotated about the centre by 0.15, 0.3, … 0.75 radian, to either side; black comes in from outside.

    MNIST-C goes to 1 radian; but beyond 45° a square comes back upon itself.
    """
    turns = [(0.15, 0.3, 0.45, 0.6, 0.75)[level] * rng.choice([-1, 1]) for rng in rngs]
    return _moved(x, [[[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]] for t in turns])


def _translate(x, level, rngs):
    """Moved by 1, 2, … 5 pixels of 28, vertically and horizontally, to either side; black comes in from outside."""
    length = (level + 1) * _unit(x, 28)
    return _moved(x, [np.eye(2)] * len(x), [length * rng.choice([-1, 1], 2) for rng in rngs])


def _stripe(x, level, rngs):
    """Inverted at the left and right edge, each up to a quarter of the width (severity 5, as in MNIST-C)."""
    n = x.shape[3]
    left = (n / 4 * (level + 1) / 5 - np.arange(n)).clip(0, 1)  # share of each column that is inverted
    return x + (left + left[::-1]) * (1 - 2 * x)


def _unit(x, reference):
    """Return how many pixels of x stand for one pixel of the benchmark, whose images are `reference` wide."""
    return min(x.shape[2:]) / reference


def _lattice(x):
    """Return how many taps of a blur to take along one pixel of CIFAR-10-C, and how many pixels of x lie between two.

    One tap a pixel on larger images; on smaller ones the benchmark's own taps, drawn together to fractions of a pixel.
    """
    return max(_unit(x, 32), 1), min(_unit(x, 32), 1)


def _sampled(x, rows, columns):
    """Return x (..., H, W) read at the real `rows` in [0, H − 1] and `columns` in [0, W − 1], bilinearly."""
    low = np.minimum(rows.astype(int), x.shape[-2] - 2)
    x = x[..., low, :] + (rows - low)[:, None] * (x[..., low + 1, :] - x[..., low, :])
    low = np.minimum(columns.astype(int), x.shape[-1] - 2)
    return x[..., low] + (columns - low) * (x[..., low + 1] - x[..., low])


def _kernel(offsets, weights):
    """Return the odd square kernel of weights (T,) at real offsets (T, 2), each shared among its four pixels."""
    reach = int(np.abs(offsets).max()) + 1
    low = np.floor(offsets).astype(int)
    kernel = np.zeros((2 * reach + 1,) * 2)
    for pixel in (low + corner for corner in np.ndindex(2, 2)):
        share = (1 - np.abs(offsets - pixel)).prod(1)
        inside = share > 0
        np.add.at(kernel, tuple(pixel[inside].T + reach), (weights * share)[inside])
    return kernel / kernel.sum()


def _filtered(x, kernel):
    """Return x (..., H, W) correlated with an odd square kernel, mirrored beyond its borders."""
    reach = len(kernel) // 2
    height, width = x.shape[-2:]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2, mode="reflect")
    # Kernels are sparse (a line) or tiny, so a sum of moved images is quicker than a general filter.
    return sum(kernel[i, j] * padded[..., i : i + height, j : j + width] for i, j in np.argwhere(kernel))


def _moved(x, matrices, shifts=None):
    """Return each image of x under an affine map: a pixel p from the centre reads the image at matrix·p − shift."""
    centre = (np.array(x.shape[2:]) - 1) / 2
    moved = np.empty_like(x)
    for i, matrix in enumerate(np.array(matrices)):
        offset = centre - matrix @ centre - (0 if shifts is None else shifts[i])
        for channel, out in zip(x[i], moved[i], strict=True):
            ndimage.affine_transform(channel, matrix, offset, output=out, order=1, mode="grid-constant")
    return moved


SHIFTS = Registry("sparselib.shifts", {
    "gaussian_noise": _gaussian_noise, "shot_noise": _shot_noise, "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur, "motion_blur": _motion_blur, "zoom_blur": _zoom_blur, "fog": _fog,
    "brightness": _brightness, "contrast": _contrast, "pixelate": _pixelate, "jpeg": _jpeg,
    "rotate": _rotate, "translate": _translate, "stripe": _stripe,
})  # fmt: skip
KINDS = SHIFTS.own
register = SHIFTS.register
