"""White-box attacks on pixels in [0, 1]. The model normalises inside, so eps is in pixel units.

FGSM: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572. PGD: Madry et al. 2018, https://arxiv.org/abs/1706.06083.
"""

import torch
import torch.nn.functional as F

from sparselib import checks, seeds
from sparselib.models import evaluating

NORMS = ("linf", "l2")
LOSSES = ("ce", "margin")
NAMES = ("fgsm", "pgd")


def fgsm(model, x, y, eps, *, norm="linf", targeted=False):
    """Return clip(x + eps·step): one gradient step of length eps in the given norm, clipped to [0, 1].

    Args:
        model: from (N, C, H, W) in [0, 1] to logits (N, K); attacked in eval mode and left as found.
        x: inputs (N, C, H, W) in [0, 1]. y: int64 (N,), the true labels, or the wanted ones when `targeted`.
        eps: radius, at least 0. norm: "linf" or "l2".
    Returns: (N, C, H, W) in [0, 1], no further than eps from x. Raises: ValueError/TypeError for bad arguments.
    """
    x, y = _checked(x, y, eps, norm)
    with evaluating(model):
        gradient = _gradient(model, x, y, "ce", targeted)
    return (x + eps * _steepest(gradient, norm)).clamp(0, 1)


def pgd(
    model, x, y, eps, *,
    norm="linf", steps=10, step_size=None, restarts=1, random_start=True, targeted=False, loss="ce", seed=0,
):  # fmt: skip
    """Return the strongest of `restarts` projected-gradient attacks, for each input.

    Args: as `fgsm`, and
        steps: gradient steps, at least 1. step_size: default 2.5·eps/steps (Madry), enough to cross the ball.
        restarts: independent runs; per input the one with the highest loss is kept, a success before any failure.
        random_start: start uniformly inside the ball instead of at x.
        loss: "ce", the cross-entropy, or "margin", max_{k≠y} z_k − z_y (Carlini & Wagner 2017), whose gradient does
            not vanish when the network is sure of itself.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x.
    """
    x, y = _checked(x, y, eps, norm)
    checks.integer("steps", steps, low=1)
    checks.integer("restarts", restarts, low=1)
    checks.choice("loss", loss, LOSSES)
    step_size = 2.5 * eps / steps if step_size is None else checks.number("step_size", step_size, 0)
    worst, worst_rank = x, None
    with evaluating(model):
        for restart in range(restarts):
            adversarial = x
            if random_start:
                start = _random_in_ball(x, eps, norm, seeds.generator(seed, "pgd", restart))
                adversarial = (x + start).clamp(0, 1)
            for _ in range(steps):
                step = step_size * _steepest(_gradient(model, adversarial, y, loss, targeted), norm)
                adversarial = (x + _projected(adversarial + step - x, eps, norm)).clamp(0, 1)
            rank = _rank(model, adversarial, y, loss, targeted) if restarts > 1 else None
            if worst_rank is None:
                worst, worst_rank = adversarial, rank
            else:
                better = rank > worst_rank
                worst = torch.where(better.view(-1, 1, 1, 1), adversarial, worst)
                worst_rank = torch.where(better, rank, worst_rank)
    return worst


def _checked(x, y, eps, norm):
    checks.labels(y, checks.images(x, unit_range=True))
    checks.number("eps", eps, 0)
    checks.choice("norm", norm, NORMS)
    return x.detach(), y


def _loss(logits, y, loss, targeted):
    """Return what the attack raises, per input (N,)."""
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise ValueError(f"y must be below the number of classes, {logits.shape[1]}, got {int(y.max())}")
    if loss == "ce":
        value = F.cross_entropy(logits, y, reduction="none")
    else:
        own = F.one_hot(y, logits.shape[1]).bool()
        value = logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
    return -value if targeted else value


def _gradient(model, x, y, loss, targeted):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = _loss(checks.logits(model(x), x), y, loss, targeted).sum()
    return torch.autograd.grad(value, x)[0]


def _rank(model, x, y, loss, targeted):
    """Return the loss per input, lifted above every failure where the attack succeeded."""
    with torch.no_grad():
        logits = checks.logits(model(x), x)
        value = _loss(logits, y, loss, targeted)
    hit = logits.argmax(1) == y
    success = hit if targeted else ~hit
    value = value.double()
    return value / (1 + value.abs()) + 2 * success  # the loss in its order within (-1, 1), above it every success


def _norms(delta):
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _steepest(gradient, norm):
    """Return the direction of norm 1 along which the loss rises fastest; 0 where the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _norms(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)


def _projected(delta, eps, norm):
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _norms(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)


def _random_in_ball(x, eps, norm, rng):
    """Return a uniform draw from the ball of radius eps in the shape of x."""
    if norm == "linf":
        return ((2 * torch.rand(x.shape, generator=rng) - 1) * eps).to(x)
    direction = torch.randn(x.shape, generator=rng)
    dimension = max(direction[:1].numel(), 1)
    radius = eps * torch.rand(len(x), 1, 1, 1, generator=rng) ** (1 / dimension)
    return (radius * direction / _norms(direction)).to(x)
