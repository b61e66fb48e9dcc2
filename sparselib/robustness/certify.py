"""Certified robustness by randomized smoothing (Cohen et al. 2019, https://arxiv.org/abs/1902.02918).

The smoothed classifier g(x) is the class that the network f gives most often to x + N(0, σ²I). If that class has
probability p > 1/2, no perturbation of L2 norm below σ·Φ⁻¹(p) changes g(x). Sampling bounds p from below.
"""

import math

import numpy as np
import torch
from scipy import special
from torch import nn

from sparselib import checks, seeds
from sparselib.models import evaluating, on_device_of

ABSTAIN = -1


@checks.typed
def certify(
    model: nn.Module, x: torch.Tensor, sigma: float, *, n0: int = 100, n: int = 1000, alpha: float = 0.001,
    batch_size: int = 512, seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return the smoothed classifier's prediction for each input and an L2 radius within which it cannot change.

    CERTIFY of the paper: n0 noisy copies pick the class, n others count how often it comes out.

    Args:
        model: from (N, C, H, W) to logits (N, K), best trained with noise of about this sigma; left as found.
        x: (N, C, H, W). sigma: standard deviation of the noise, above 0, in the units of x.
        n0: copies that pick the class, at least 1. n: copies that certify, at least n0: the largest radius that can
            come out is `radius_cap(sigma, n, alpha)`, so always show n.
        alpha: probability over the noise of a wrong certificate, in (0, 1), for each input.
        batch_size: noisy copies per forward pass; it does not change the result.
        seed: of the noise. That of an input depends on the seed and the input's index in x, on nothing else.
    Returns: prediction int64 (N,), the class, or ABSTAIN = -1 where none is surely above one half; radius float32 (N,)
        in the units of x, 0 where it abstains.
    Raises: ValueError/TypeError for bad arguments.
    """
    on_device_of(model, checks.images(x))
    checks.number("sigma", sigma, 0, low_open=True)
    checks.integer("n0", n0, low=1)
    checks.integer("n", n, low=1)
    if n < n0:
        raise ValueError(f"n must be at least n0 = {n0}: more copies certify than pick the class, got {n}")
    _checked_alpha(alpha)
    checks.integer("batch_size", batch_size, low=1)
    prediction = torch.full((len(x),), ABSTAIN, dtype=torch.int64, device=x.device)
    radius = torch.zeros(len(x), dtype=torch.float32, device=x.device)
    with evaluating(model), torch.no_grad():
        for index in range(len(x)):
            classes = _noisy_classes(model, x[index], sigma, n0 + n, batch_size, seed, index)
            picked = int(np.bincount(classes[:n0]).argmax())
            p = lower_bound(int((classes[n0:] == picked).sum()), n, alpha)
            if p > 0.5:
                prediction[index], radius[index] = picked, sigma * special.ndtri(p)
    return prediction, radius


@checks.typed
def lower_bound(k: int, n: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound: k hits in n trials, so the rate is above it, at confidence 1 − alpha.

    The alpha-quantile of Beta(k, n − k + 1), and 0 for k = 0.
    """
    checks.integer("n", n, low=1)
    checks.integer("k", k, low=0, high=n)
    return float(special.betaincinv(k, n - k + 1, _checked_alpha(alpha))) if k else 0.0


@checks.typed
def radius_cap(sigma: float, n: int, alpha: float) -> float:
    """Return σ·Φ⁻¹(α^(1/n)), the radius when all n noisy copies agree: none can be larger. 0 where it would abstain.

    At sigma 0.25 and alpha 0.001: 0.616 for n = 1e3, 0.800 for 1e4, 0.953 for 1e5.
    """
    checks.number("sigma", sigma, 0, low_open=True)
    checks.integer("n", n, low=1)
    # −Φ⁻¹(1 − p) keeps its digits when p is close to 1.
    return max(0.0, float(-sigma * special.ndtri(-math.expm1(math.log(_checked_alpha(alpha)) / n))))


def _checked_alpha(alpha):
    return checks.number("alpha", alpha, 0, 1, low_open=True, high_open=True)


def _noisy_classes(model, image, sigma, count, batch_size, seed, index):
    """Return the model's classes (count,) for the image (C, H, W) plus noise, as a NumPy array."""
    # NumPy draws normal numbers one by one, so the stream is the same in batches of any size; torch's is not.
    rng, classes = seeds.numpy_generator(seed, "certify", index), []
    wide = torch.promote_types(image.dtype, torch.float32)  # half precision would round the noise
    for start in range(0, count, batch_size):
        shape = min(batch_size, count - start), *image.shape  # (B, C, H, W)
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(image.device, wide)
        noisy = (image + sigma * noise).to(image.dtype)
        classes.append(checks.logits(model(noisy), noisy).argmax(1).cpu().numpy())
    return np.concatenate(classes)
