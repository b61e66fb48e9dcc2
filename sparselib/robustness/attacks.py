"""Attacks on pixels in [0, 1]. The model normalises inside, so eps is in pixel units.

FGSM: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572. PGD: Madry et al. 2018, https://arxiv.org/abs/1706.06083.
Towards every class: Gowal et al. 2019, https://arxiv.org/abs/1910.09338. AutoAttack: Croce & Hein 2020,
https://arxiv.org/abs/2003.01690. The margin as a loss: Carlini & Wagner 2017, https://arxiv.org/abs/1608.04644.
Adaptive: Carlini & Wagner 2017, https://arxiv.org/abs/1705.07263. `sanity` tells whether to believe them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparselib import checks, seeds
from sparselib.models import evaluating, on_device_of
from sparselib.robustness import autoattack as toolbox

NORMS = ("linf", "l2")
LOSSES = ("ce", "margin")
NAMES = ("fgsm", "pgd", "multitargeted", "autoattack")
PART = 512  # inputs attacked at a time
WEIGHTS = (0.0, 0.2, 0.5)  # of the score, in an adaptive attack: evaded most detectors of several triples on digits
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
    """Return the strongest point that `restarts` projected-gradient attacks pass, for each input.

    Of all points on the way, the start and the end included, each input keeps the one with the highest loss, a success
    before any failure. Other libraries return the last one, which may be weaker. A run costs `steps` passes forward
    and back, and one forward.

    Args: as `fgsm`, and
        steps: gradient steps, at least 1. step_size: default 2.5·eps/steps (Madry), enough to cross the ball.
        restarts: independent runs.
        random_start: start uniformly inside the ball instead of at x.
        loss: "ce", the cross-entropy, or "margin", f₆ of Carlini & Wagner; see `losses`. "both": each run once up
            either, from the same start, and the points compared by their margin.
        early_stop: keep the first adversarial point of each input, the start included, instead of climbing on to a
            higher loss; the steps and restarts left go to the rest only. Enough to measure accuracy; the points are
            less extreme, so not for measuring detection.
        seed: of the starts. That of an input depends on its place in the batch and the size of the batch only.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x.
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    checks.choice("loss", loss, (*LOSSES, "both"))
    climbs = LOSSES if loss == "both" else (loss,)
    judge = "margin" if loss == "both" else loss

    def objective(climbed):
        def values(_, logits, y):
            raised = losses(logits, y, climbed, targeted)
            return raised, _rank(losses(logits.detach().double(), y, judge, targeted), _success(logits, y, targeted))

        return values

    ball = _Ball(eps, norm, steps, step_size)
    runs = _Runs(restarts, random_start, early_stop, seed)
    return _strongest(model, x, y, ball, runs, [objective(climbed) for climbed in climbs])


@checks.typed
def multitargeted(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, *, norm: str = "linf", steps: int = 10,
    step_size: float | None = None, restarts: int = 1, random_start: bool = True, seed: int = 0,
) -> torch.Tensor:  # fmt: skip
    """Return the strongest point that projected-gradient attacks towards every other class pass, for each input.

    One attack a class k, the likeliest first, up z_k − z_y; a misclassified point, of whatever class, ends the search
    for its input. Where several classes are near, `pgd` follows whichever is nearest at the moment, and may reach none.
    Costs up to K − 1 times what `pgd` does: for the inputs that withstand that, and to measure accuracy, not detection.

    Args: as `pgd`. y: the true labels. seed: of the starts, which depend on the inputs that are still left.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x; a misclassified input comes back unchanged.
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    ball, runs = _Ball(eps, norm, steps, step_size), _Runs(restarts, random_start, True, seed)

    def towards(_, logits, pair):
        label, other = pair.unbind(1)
        raised = logits.gather(1, other.unsqueeze(1)) - logits.gather(1, label.unsqueeze(1))
        return raised.squeeze(1), _reached(logits, label)

    with evaluating(model):
        logits = [forward(model, part, graph=False)[1] for (part,) in _parts(x)]
    logits = torch.cat(logits) if logits else x.new_empty(0, 1)
    others = logits.scatter(1, checks.labels(y, logits, classes=logits.shape[1]).unsqueeze(1), -torch.inf)
    strongest, rank = x.clone(), _reached(logits, y)
    for other in others.argsort(1, descending=True)[:, :-1].T:
        left = (rank < 1).nonzero().squeeze(1)  # a success ranks above 1
        if not len(left):
            break
        found = _strongest(model, x[left], torch.stack([y[left], other[left]], 1), ball, runs, [towards])
        with evaluating(model):
            reached = torch.cat([_reached(forward(model, a, graph=False)[1], b) for a, b in _parts(found, y[left])])
        better = reached > rank[left]
        strongest[left[better]], rank[left[better]] = found[better], reached[better]
    return strongest


@checks.typed
def adaptive(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float, score: Callable[[torch.Tensor], torch.Tensor],
    threshold: float, *, weights: Sequence[float] = WEIGHTS, scale: float | None = None, norm: str = "linf",
    steps: int = 40, step_size: float | None = None, restarts: int = 1, random_start: bool = True,
    early_stop: bool = False, seed: int = 0,
) -> torch.Tensor:  # fmt: skip
    """Return points that are misclassified *and* pass a detector, where the attack finds such, for each input.

    PGD up margin − λ·score/scale, once for each λ of `weights`. Of all points on the way, each input keeps one that is
    misclassified at a score of at most `threshold`, before any that is not; among these the one of largest margin. So
    the result is the worst case over the weights. A λ of 0 with threshold ∞ is `pgd` up the margin. A step costs the
    passes of the model and those of the score.

    Args: as `pgd`, and
        y: the true labels.
        score: from (N, C, H, W) to anomaly scores (N,), higher = more anomalous, through which autograd reaches its
            input: the method `differentiable` of a fitted detector.
        threshold: inputs are rejected when they score above it, see `detection.metrics.threshold`; may be infinity.
        weights: each λ, at least 0; one or more.
        scale: > 0, what counts as one unit of the score; default its standard deviation over x (1 where that is 0),
            which depends on the batch.
    Returns: (N, C, H, W) in [0, 1], no further than eps from x.
    Raises: as `pgd`; ValueError for scores that are not finite (N,).
    """
    x, y, eps = _checked(model, x, y, eps, norm)
    if not callable(score):
        raise TypeError(f"score must be callable, got {type(score).__name__}")
    threshold = threshold if threshold == torch.inf else checks.number("threshold", threshold)
    if not isinstance(weights, Sequence) or isinstance(weights, str) or not weights:
        raise ValueError(f"weights must be at least one number, got {weights!r}")
    weights = [checks.number("weights", weight, 0) for weight in weights]
    if scale is None:
        with torch.no_grad():
            values = [_scored(score, part).double() for (part,) in _parts(x)]
        scale = float(torch.cat(values).std(correction=0)) if len(x) else 1.0
        scale = scale if scale > 0 else 1.0
    scale = checks.number("scale", scale, 0, low_open=True)

    def objective(weight):
        def values(points, logits, y):
            anomaly = _scored(score, points)
            margin = losses(logits, y, "margin")
            evades = _success(logits, y, False) & (anomaly <= threshold)
            return margin - weight / scale * anomaly, _rank(margin.detach().double(), evades)

        return values

    ball = _Ball(eps, norm, steps, step_size)
    runs = _Runs(restarts, random_start, early_stop, seed)
    return _strongest(model, x, y, ball, runs, [objective(weight) for weight in weights])


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


def forward(model: nn.Module, x: torch.Tensor, *, graph: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (N, C, H, W) as a leaf that takes gradients, and its logits (N, K); without `graph`, neither does."""
    x = x.detach().requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        return x, checks.logits(model(x), x)


def input_gradient(
    x: torch.Tensor, logits: torch.Tensor, y: torch.Tensor, loss: str = "ce", targeted: bool = False
) -> torch.Tensor:
    """Return the gradient (N, C, H, W) of the `losses` of a `forward`.

    0 where the network lets no gradient through, which `sanity` flags. Raises: ValueError when it is not finite.
    """
    with torch.enable_grad():
        return _gradient(losses(logits, y, loss, targeted), x)


def _gradient(values, x):
    """Return the gradient (N, C, H, W) of values (N,), where value n depends on x_n alone."""
    value = values.sum()
    if not value.requires_grad:
        return torch.zeros_like(x)
    gradient = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)[0]
    if not torch.isfinite(gradient).all():
        raise ValueError("model has a gradient that is NaN or infinite")
    return gradient


@dataclass
class _Ball:
    """Where a climb goes: how far from x, in which norm, in how many steps of which length."""

    eps: float
    norm: str
    steps: int
    step_size: float | None

    def __post_init__(self):
        checks.integer("steps", self.steps, low=1)
        given = self.step_size
        self.step = 2.5 * self.eps / self.steps if given is None else min(checks.number("step_size", given, 0), FAR)


@dataclass
class _Runs:
    """How many climbs, from where, until when: what `pgd` says of these arguments."""

    restarts: int
    random_start: bool
    early_stop: bool
    seed: int

    def __post_init__(self):
        checks.integer("restarts", self.restarts, low=1)


def _strongest(model, x, y, ball, runs, objectives):
    """Return the point of the highest rank, per input, that any climb up any objective passes.

    An objective gives what is raised (N,), with a graph, and the ranks (N,) of points, their logits (N, K) and labels.
    """
    strongest, rank = x.clone(), x.new_full((len(x),), -torch.inf, dtype=torch.float64)
    left = torch.arange(len(x), device=x.device)
    with evaluating(model):
        for restart in range(runs.restarts):
            starts = x
            if runs.random_start:  # drawn for all, so that it does not matter who is left
                starts = random_in_ball(x, ball.eps, ball.norm, seeds.generator(runs.seed, "pgd", restart))
                starts = starts.add_(x).clamp_(0, 1)
            for objective in objectives:
                for part in left.split(PART):
                    found = _climb(model, x[part], y[part], starts[part], ball, objective, runs.early_stop)
                    better = found[1] > rank[part]
                    strongest[part[better]], rank[part[better]] = found[0][better], found[1][better]
                if runs.early_stop:
                    left = left[rank[left] < 1]  # a success ranks above 1
                    if not len(left):
                        return strongest
    return strongest


def _climb(model, x, y, start, ball, objective, early_stop):
    """Return the point of the highest rank (N, C, H, W) on a projected gradient ascent from `start`, and its rank (N,).

    With `early_stop`, a point that reaches a success climbs no further.
    """
    best, rank, here = start.clone(), x.new_full((len(x),), -torch.inf, dtype=torch.float64), start
    left = torch.arange(len(x), device=x.device)  # the place in `best` of each point that still climbs
    for step in range(ball.steps + 1):
        last = step == ball.steps
        leaf, logits = forward(model, here, graph=not last)
        with torch.set_grad_enabled(not last):
            raised, reached = objective(leaf, logits, y)
        better = reached > rank[left]
        best[left[better]], rank[left[better]] = here[better], reached[better]
        goes_on = reached < 1 if early_stop else torch.ones_like(better)
        if last or not goes_on.any():
            break
        gradient = _gradient(raised, leaf)
        if not goes_on.all():
            left, x, y, here, gradient = (t[goes_on] for t in (left, x, y, here, gradient))
        delta = projected(here + ball.step * steepest(gradient, ball.norm) - x, ball.eps, ball.norm)
        here = (x + delta).clamp(0, 1)
    return best, rank


def _success(logits, y, targeted):
    return (logits.argmax(1) == y) == targeted


def _reached(logits, y):
    """Return the ranks (N,) of points by their margin, those that are misclassified above all others."""
    return _rank(losses(logits.detach().double(), y, "margin"), _success(logits, y, False))


def _rank(value, success):
    """Return float64 values (N,) in their order within (-1, 1), and lifted above every failure where `success`."""
    return value / (1 + value.abs()) + 2 * success


def _scored(score, x):
    """Return score(x) if it is finite numbers (N,)."""
    found = score(x)
    if not isinstance(found, torch.Tensor) or found.shape != x.shape[:1] or not torch.isfinite(found).all():
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"score must map (N, C, H, W) to finite numbers (N,), got {got} for N = {len(x)}")
    return found


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
