"""Subnetworks of a trained network, found by learning which weights to keep while the weights stay as they are.

Each weight gets a score s; those with the highest |s| are kept; the gradient reaches |s| straight through the choice,
so that that of s is ∂L/∂w_eff ⊙ w ⊙ sign(s), as in the authors' programs. Edge-popup (Ramanujan et al. 2020,
https://arxiv.org/abs/1911.13299) starts from random scores, HYDRA (Sehwag et al. 2020,
https://arxiv.org/abs/2002.10509) from scores proportional to the trained weights.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from sparselib import checks, data, seeds, training
from sparselib.models import batch_norms, device_of, evaluating
from sparselib.pruning import masks
from sparselib.robustness import objectives

OBJECTIVES = ("clean", "adversarial", "shift", "outlier")
BATCH_NORMS = ("frozen", "restated")


@checks.typed
def search(
    model: nn.Module, train: data.Samples, sparsity: float, *, objective: str = "clean",
    outliers: data.Samples | None = None, unseen: Iterable[data.Samples] = (), eps: float = 0.1, noise: float = 1.0,
    epochs: int = 20, batch_size: int = 64, lr: float | None = None, scope: str = "layer", keep_ends: bool = True,
    init: str = "hydra", batch_norm: str = "frozen", precision: str = "float32", seed: int = 0, progress: bool = True,
) -> nn.Module:  # fmt: skip
    """Return a copy of the model with learnt masks: its weights, biases and statistics are those of the model.

    Args:
        model: trained (or not: a control), without masks; left untouched.
        train: Samples. A fifth is held back; of all epochs' masks, the first included, those with the lowest held-back
            loss are returned. That fifth passes in one batch: of 50,000 images of 32×32, ten GB for a ResNet-18 of
            width 16.
        sparsity: in [0, 1), the fraction of all prunable weights removed.
        objective: "clean" (cross-entropy), "adversarial" (TRADES in L∞ at radius `eps`), "shift" (noise of deviation
            `noise` on half of the pixels), or "outlier" (outlier exposure on `outliers`, Samples of another kind).
        unseen: Samples that serve as outliers in a test later on; `outliers` must share no image with them.
        epochs: of learning; 0 keeps the masks of the first scores: the largest weights ("hydra") or random ones.
        lr: of Adam on the scores; default 0.01 per layer, 0.001 globally (scores compete across layers there).
        scope: "layer" keeps the same fraction of each layer, "global" ranks all weights together.
        keep_ends: the first and last layer keep all their weights; the others make up for it.
        init: "hydra" (w scaled to the layer's fan-in) or "edge-popup" (random).
        batch_norm: "frozen" keeps the statistics, so nothing but masks differs; "restated" learns the masks under
            batch statistics and measures them anew for the result.
        precision: of the passes while learning, "float32" or "bfloat16": see `training.fit`.
    Raises: ValueError for arguments out of range, outliers missing or overlapping with `unseen`;
        FloatingPointError for a model whose loss is not finite.
    """
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.number("noise", noise, 0)
    checks.choice("init", init, ("hydra", "edge-popup"))
    checks.choice("scope", scope, ("layer", "global"))
    checks.choice("batch_norm", batch_norm, BATCH_NORMS)
    checks.integer("epochs", epochs, low=0)
    checks.integer("batch_size", batch_size, low=1)
    lr = (0.01 if scope == "layer" else 0.001) if lr is None else checks.number("lr", lr, 0, low_open=True)
    _check_size(train)
    if any(masks.mask_of(layer) is not None for layer in masks.distinct(model).values()):
        raise ValueError("model must have no masks yet: search starts from all weights (see masks.bare)")
    loss = objective_of(objective, outliers, unseen, eps, noise)
    learner = masks.bare(model).eval()
    layers = masks.distinct(learner)
    counts = survivors(layers, sparsity, scope, keep_ends)
    for parameter in learner.parameters():
        parameter.requires_grad_(False)
    popups = {name: Popup(layers[name].weight, init, seed, name) for names in counts for name in names}
    for name, popup in popups.items():
        for layer in masks.sharing(learner, layers[name]):
            parametrize.register_parametrization(layer, "weight", popup)
    choose(popups, counts)
    restated = batch_norm == "restated"
    for module in batch_norms(learner) if restated else ():
        module.train()
    best = _learn(
        learner, [popup.scores for popup in popups.values()], train, loss, epochs=epochs, batch_size=batch_size, lr=lr,
        precision=precision, seed=seed, restated=restated, progress=progress,
        after_step=lambda: choose(popups, counts),
        state=lambda: {name: popup.mask.clone() for name, popup in popups.items()},
    )  # fmt: skip
    found = copy.deepcopy(model)
    whole = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in masks.distinct(found).items()}
    masks.set_masks(found, {**whole, **best})
    if restated:
        training.restate_batch_norm(found, train)
    return found


@checks.typed
def fit_batch_norm(
    model: nn.Module, train: data.Samples, *, objective: str = "adversarial", outliers: data.Samples | None = None,
    unseen: Iterable[data.Samples] = (), eps: float = 0.1, noise: float = 1.0, epochs: int = 20, batch_size: int = 64,
    lr: float = 0.01, precision: str = "float32", seed: int = 0, progress: bool = True,
) -> nn.Module:  # fmt: skip
    """Return a copy of the model whose batch-norm scales and shifts are learnt, and nothing else.

    The control for `search`: what the same budget reaches without removing a weight. Objectives, steps, their order and
    the choice of the best epoch on a held-back fifth are the same. Weights, statistics and masks are the model's, bit
    for bit; the statistics are in force while learning, too.

    Args: as `search`; lr: of Adam on scales and shifts.
    Raises: ValueError for arguments out of range and a model whose batch-norm layers have no scale or shift;
        FloatingPointError for a model whose loss is not finite.
    """
    checks.number("noise", noise, 0)
    checks.integer("epochs", epochs, low=0)
    checks.integer("batch_size", batch_size, low=1)
    checks.number("lr", lr, 0, low_open=True)
    _check_size(train)
    loss = objective_of(objective, outliers, unseen, eps, noise)
    learner = copy.deepcopy(model).eval().requires_grad_(False)
    if not (affine := _affine(learner)):
        raise ValueError(f"model must have batch-norm layers with scale and shift to learn, got {type(model).__name__}")
    best = _learn(
        learner, [p.requires_grad_() for p in affine], train, loss, epochs=epochs, batch_size=batch_size, lr=lr,
        precision=precision, seed=seed, restated=False, progress=progress, after_step=lambda: None,
        state=lambda: [p.detach().clone() for p in affine],
    )  # fmt: skip
    found = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, learnt in zip(_affine(found), best, strict=True):
            parameter.copy_(learnt)
    return found


def _affine(model):
    return [parameter for layer in batch_norms(model) for parameter in layer.parameters(recurse=False)]


def _check_size(train):
    if len(train) < 10:
        raise ValueError(f"train must have at least 10 samples, to hold a fifth back, got {len(train)}")


class Popup(nn.Module):
    """weight ↦ weight ⊙ mask, with the gradient passed straight through the mask to the sizes of the scores.

    `init`: as in `search`. `seed`, `name` of the weight: of the random scores.
    """

    mask: torch.Tensor

    def __init__(self, weight: torch.Tensor, init: str, seed: int, name: str) -> None:
        super().__init__()
        bound = math.sqrt(6 / weight[0].numel())
        if init == "hydra":
            scores = bound * weight.detach() / weight.detach().abs().max().clamp_min(1e-12)
        else:
            drawn = torch.rand(weight.shape, generator=seeds.generator(seed, "scores", name))
            scores = (bound * (2 * drawn - 1)).to(weight)
        self.scores = nn.Parameter(scores)
        self.register_buffer("mask", torch.ones_like(scores, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        size = self.scores.abs()
        return weight * (self.mask + size - size.detach())


def objective_of(
    name: str, outliers: data.Samples | None, unseen: Iterable[data.Samples], eps: float, noise: float
) -> objectives.Objective:
    """Return the loss that `search` descends for these arguments. Raises: ValueError as `search`."""
    checks.choice("objective", name, OBJECTIVES)
    if name != "outlier":
        trades, half = objectives.Adversarial(eps, method="trades"), objectives.HalfNoise(noise)
        return {"clean": objectives.clean, "adversarial": trades, "shift": half}[name]
    if outliers is None or not len(outliers):
        raise ValueError("objective 'outlier' needs outliers, got none")
    for other in unseen:
        if shared := data.overlap(outliers, other):
            raise ValueError(f"outliers share {shared} images with the test outliers {other.name!r}")
    return objectives.OutlierExposure(outliers.x)


def survivors(
    layers: Mapping[str, masks.Layer], sparsity: float, scope: str, keep_ends: bool
) -> dict[tuple[str, ...], int]:
    """Return {names that compete: how many of their weights stay}; layers in no key keep all.

    Arguments as in `search`. Raises: ValueError for a sparsity too high for what stays.
    """
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    names, every = list(sizes), sum(sizes.values())
    chosen = names[1:-1] if keep_ends and len(names) > 2 else names
    total = sum(sizes[n] for n in chosen)
    kept_elsewhere = every - total
    left = round((1 - sparsity) * every) - kept_elsewhere
    if left < len(chosen):
        raise ValueError(
            f"sparsity {sparsity} is too high while the first and last layer keep their {kept_elsewhere} weights: "
            f"at most {1 - (kept_elsewhere + len(chosen)) / every:.4f}, or set keep_ends=False"
        )
    if scope == "global":
        return {tuple(chosen): left}
    shares = {name: max(1, int(left * sizes[name] / total)) for name in chosen}
    while surplus := sum(shares.values()) - left:  # rounding; the total is exact
        name = max(chosen, key=lambda n: shares[n] if surplus > 0 else sizes[n] - shares[n])
        shares[name] -= 1 if surplus > 0 else -1
    return {(name,): share for name, share in shares.items()}


def choose(popups: dict[str, Popup], counts: dict[tuple[str, ...], int]) -> None:
    """Set every mask to the scores of the largest size, as many as `counts` says of the names that compete."""
    for names, count in counts.items():
        scores = torch.cat([popups[name].scores.detach().abs().flatten() for name in names])
        kept = masks.keep_highest(scores, count).split([popups[name].scores.numel() for name in names])
        for name, mask in zip(names, kept, strict=True):
            popups[name].mask.copy_(mask.view_as(popups[name].mask))


State = TypeVar("State")


def _learn(
    learner: nn.Module, parameters: Sequence[torch.Tensor], train: data.Samples, loss: objectives.Objective, *,
    epochs: int, batch_size: int, lr: float, precision: str, seed: int, restated: bool, progress: bool,
    after_step: Callable[[], None], state: Callable[[], State],
) -> State:  # fmt: skip
    """Descend the loss in the parameters; return the `state` with the lowest on the held-back fifth, the first too."""
    best, lowest = state(), math.inf
    device = device_of(learner)
    held_back, used = train.split(0.2, seed=seed)
    x, y, held_x, held_y = (t.to(device) for t in (used.x, used.y, held_back.x, held_back.y))
    precision = training.supported(precision, x)
    if not epochs:
        return best
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // batch_size))
    order, step = seeds.generator(seed, "search"), 0
    bar = tqdm(range(epochs + 1), desc="learning", unit="epoch", disable=not progress, leave=False)
    with training.computing(learner, x[:1], precision) as (net, layout):
        for epoch in bar:
            for index in torch.randperm(len(x), generator=order).split(batch_size) if epoch else ():
                xb = x[index].contiguous(memory_format=layout)
                value, _ = loss(net, xb, y[index], seed=seeds.derive(seed, "batch", step))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                after_step()
                step += 1
            if restated:
                training.restate_batch_norm(learner, used)
            with evaluating(learner):
                now = loss(net, held_x, held_y, seed=seeds.derive(seed, "held"))[0].item()
            if not epoch and not math.isfinite(now):
                raise FloatingPointError(f"the model's loss before learning is {now}: nothing can be learnt from it")
            if now < lowest:
                lowest, best = now, state()
    return best
