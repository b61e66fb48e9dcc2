"""Attacks on pixels in [0, 1]. The model normalises inside, so eps is in pixel units.

FGSM: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572. PGD: Madry et al. 2018, https://arxiv.org/abs/1706.06083.
AutoAttack: Croce & Hein 2020, https://arxiv.org/abs/2003.01690. `sanity` tells whether to believe them.
"""

import torch
from torch import nn

from sparselib import checks, seeds
from sparselib.models import evaluating, on_device_of
from sparselib.robustness import autoattack as toolbox

NORMS = ("linf", "l2")
LOSSES = ("ce", "margin")
NAMES = ("fgsm", "pgd", "autoattack")
PART = 512  # inputs attacked at a time
FAR = 1e6  # beyond any two images: larger radii and steps are this one, which float32 holds


@checks.typed
def fgsm(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, *, norm: str = "linf", targeted: bool = False
) -> torch.Tensor:
    """Return clip(x + eps·step): one gradient step of length eps in the given norm, clipped to [0, 1].

    Args:
        model: from (N, C, H, W) in [0, 1] to logits (N, K); attacked in eval mode and left as found.
        x: inputs (N, C, H, W) in [0, 1]. y: int64 (N,), the true labels, or the wanted ones when `targeted`.
        eps: radius, at least 0. norm: "linf" or "l2".
    Returns: (N, C, H, W) in [0, 1], no further than eps from x. Raises: ValueError/TypeError for bad arguments.
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    attacked = torch.empty_like(x)
    with evaluating(model):
        for xs, ys, out in _parts(x, y, attacked):
            gradient = input_gradient(*forward(model, xs), ys, targeted=targeted)
            out.copy_((xs + eps * steepest(gradient, norm)).clamp(0, 1))
    return attacked


@checks.typed
def pgd(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, *, norm: str = "linf", steps: int = 10,
    step_size: float | None = None, restarts: int = 1, random_start: bool = True, targeted: bool = False,
    loss: str = "ce", early_stop: bool = False, seed: int = 0,
) -> torch.Tensor:  # fmt: skip
    """Return the strongest of `restarts` projected-gradient attacks, for each input.

    Args: as `fgsm`, and
        steps: gradient steps, at least 1. step_size: default 2.5·eps/steps (Madry), enough to cross the ball.
        restarts: independent runs; per input the one with the highest loss is kept, a success before any failure.
        random_start: start uniformly inside the ball instead of at x.
        loss: "ce", the cross-entropy, or "margin" (Carlini & Wagner 2017); see `losses`.
        early_stop: keep the first adversarial point of each input, the start included, instead of climbing on to a
            higher loss; the steps and restarts left go to the rest only. Enough to measure accuracy; the points are
            less extreme, so not for measuring detection.
        seed: of the starts. That of an input depends on its place in the batch and the size of the batch only.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x.
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    checks.integer("steps", steps, low=1)
    checks.integer("restarts", restarts, low=1)
    checks.choice("loss", loss, LOSSES)
    step_size = 2.5 * eps / steps if step_size is None else min(checks.number("step_size", step_size, 0), FAR)
    worst, rank = torch.empty_like(x), x.new_full((len(x),), -torch.inf, dtype=torch.float64)
    left = torch.arange(len(x), device=x.device)
    with evaluating(model):
        for restart in range(restarts):
            points = x.clone()
            if random_start:  # drawn for all, so that it does not matter who is left
                points = random_in_ball(x, eps, norm, seeds.generator(seed, "pgd", restart)).add_(x).clamp_(0, 1)
            xs, ys, ends = (x, y, points) if len(left) == len(x) else (x[left], y[left], points[left])
            for xb, yb, out in _parts(xs, ys, ends):  # in place: from where a climb starts to where it ends
                out.copy_(_climb(model, xb, yb, out, eps, norm, steps, step_size, loss, targeted, early_stop))
            if restarts == 1:
                return ends
            reached = torch.cat([_rank(model, xb, yb, loss, targeted) for xb, yb in _parts(ends, ys)])
            better = reached > rank[left]
            worst[left[better]], rank[left[better]] = ends[better], reached[better]
            if early_stop:
                left = left[rank[left] < 1]  # a success ranks above 1
                if not len(left):
                    break
    return worst


@checks.typed
def autoattack(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, *, norm: str = "linf", seed: int = 0,
    batch_size: int = 256,
) -> torch.Tensor:  # fmt: skip
    """Return an adversarial point for each input that one of four strong attacks breaks, and x for the others.

    Auto-PGD on the cross-entropy, Auto-PGD on the difference of logits ratio (two classes: the margin), DeepFool and
    the black-box Square attack; each goes on with what the one before left unbroken. The module `autoattack` has the
    settings. It takes minutes where `pgd` takes seconds: for a final figure, on a few hundred inputs.

    Args: as `fgsm`, and
        seed: of all its random choices, drawn for the whole batch at once: a sample's point depends on the others. The
            global states of torch, NumPy and `random` are left as found.
        batch_size: inputs per forward pass, at least 1.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x; a misclassified input comes back unchanged.
    Raises: ImportError without the toolbox; ValueError/TypeError for bad arguments.
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    checks.integer("batch_size", batch_size, low=1)
    with evaluating(model):
        with torch.no_grad():
            classes = {checks.logits(model(part), part).shape[1] for part in x.split(batch_size)}
        checks.labels(y, x, classes=max(classes))
        if not len(x) or not eps:
            return x.clone()
        found = toolbox.run(model, x, y, eps, norm, max(classes), seed, batch_size)
    # It works in float32, up to 1e-4 outside of the ball; what it did not move stays what it was.
    moved = (found != x.float()).flatten(1).any(1) & torch.isfinite(found).flatten(1).all(1)
    return torch.where(moved.view(-1, 1, 1, 1), (x + projected(found.to(x) - x, eps, norm)).clamp(0, 1), x)


def _parts(*tensors):
    """Yield tensors (N, …) PART inputs at a time."""
    return zip(*(tensor.split(PART) for tensor in tensors), strict=True)


def _checked(model, x, y, eps, norm):
    checks.labels(y, checks.images(x, unit_range=True, half=False))
    on_device_of(model, x)
    checks.choice("norm", norm, NORMS)
    return x.detach(), y, min(checks.number("eps", eps, 0), FAR)


def losses(logits: torch.Tensor, y: torch.Tensor, loss: str = "ce", targeted: bool = False) -> torch.Tensor:
    """Return what the attack raises, per input (N,), given the logits (N, K). Raises: ValueError for y beyond K.

    "margin": m = max_{k≠y} z_k − z_y. "ce": the same with the soft maximum, s = log Σ_{k≠y} exp z_k − z_y. The
    cross-entropy itself is log(1 + exp s), which rises with s and in its direction, but in float32 it is 0, and so is
    its gradient, on most inputs of a well-trained network.
    """
    checks.labels(y, logits, classes=logits.shape[1])
    at = y.unsqueeze(1)
    others = logits.scatter(1, at, -torch.inf)
    value = (others.logsumexp(1) if loss == "ce" else others.amax(1)) - logits.gather(1, at).squeeze(1)
    return -value if targeted else value


def forward(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (N, C, H, W) as a leaf that takes gradients, and its logits (N, K)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return x, checks.logits(model(x), x)


def input_gradient(
    x: torch.Tensor, logits: torch.Tensor, y: torch.Tensor, loss: str = "ce", targeted: bool = False
) -> torch.Tensor:
    """Return the gradient (N, C, H, W) of the `losses` of a `forward`.

    0 where the network lets no gradient through, which `sanity` flags. Raises: ValueError when it is not finite.
    """
    with torch.enable_grad():
        value = losses(logits, y, loss, targeted).sum()
    if not value.requires_grad:
        return torch.zeros_like(x)
    gradient = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)[0]
    if not torch.isfinite(gradient).all():
        raise ValueError("model has a gradient that is NaN or infinite")
    return gradient


def _climb(model, x, y, start, eps, norm, steps, step_size, loss, targeted, early_stop):
    """Return where projected gradient ascent from `start` ends, or its first adversarial point with `early_stop`."""
    ends, here = start.clone(), start
    left = torch.arange(len(x), device=x.device)  # the place in `ends` of each point that still climbs
    for _ in range(steps):
        leaf, logits = forward(model, here)
        broken = _success(logits, y, targeted) & early_stop
        if broken.all():
            break
        gradient = input_gradient(leaf, logits, y, loss, targeted)
        if broken.any():
            ends[left[broken]] = here[broken]
            left, x, y, here, gradient = (t[~broken] for t in (left, x, y, here, gradient))
        here = (x + projected(here + step_size * steepest(gradient, norm) - x, eps, norm)).clamp(0, 1)
    ends[left] = here
    return ends


def _success(logits, y, targeted):
    return (logits.argmax(1) == y) == targeted


def _rank(model, x, y, loss, targeted):
    """Return the loss per input, lifted above every failure where the attack succeeded."""
    with torch.no_grad():
        logits = checks.logits(model(x), x)
    value = losses(logits.double(), y, loss, targeted)
    # the loss in its order within (-1, 1), above it every success
    return value / (1 + value.abs()) + 2 * _success(logits, y, targeted)


def _norms(delta):
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def steepest(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """Return the direction (N, C, H, W) of norm 1 along which the loss rises fastest; 0 where the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    # Of a network that is very sure the gradient is so small that its squares are 0: first to a largest entry of 1.
    gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)
    return gradient / _norms(gradient).clamp_min(tiny)


def projected(delta: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """Return the point of the ball of radius eps nearest to delta (N, C, H, W), in the Euclidean sense."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _norms(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)


def random_in_ball(x: torch.Tensor, eps: float, norm: str, rng: torch.Generator) -> torch.Tensor:
    """Return uniform draws from the ball of radius eps, one for each input of x (N, C, H, W), in its shape."""
    if norm == "linf":
        return torch.rand(x.shape, generator=rng).mul_(2).sub_(1).mul_(eps).to(x)
    direction = torch.randn(x.shape, generator=rng)
    length = _norms(direction)
    radius = eps * torch.rand(len(x), 1, 1, 1, generator=rng) ** (1 / max(direction[:1].numel(), 1))
    return direction.mul_(radius).div_(length).to(x)
