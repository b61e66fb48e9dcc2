"""Training objectives: each maps (model, x, y) to a scalar loss and the logits (N, K) of the inputs it trained on.

They are what `training.fit` descends for weights and `subnetworks.search` for masks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from sparselib import checks, seeds
from sparselib.models import evaluating
from sparselib.robustness import attacks

Result = tuple[torch.Tensor, torch.Tensor]  # loss (), logits (N, K)
Objective = Callable[..., Result]  # of (model, x, y, seed=…)


def clean(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> Result:
    """Cross-entropy on the inputs as they are."""
    logits = _logits(model, x)
    return F.cross_entropy(logits, y), logits


@dataclass(frozen=True)
class Adversarial:
    """Adversarial training.

    method "pgd" (Madry et al. 2018, https://arxiv.org/abs/1706.06083): cross-entropy on inputs attacked by PGD.
    method "trades" (Zhang et al. 2019, https://arxiv.org/abs/1901.08573): cross-entropy on clean inputs plus
    beta·KL(p(clean) ‖ p(attacked)), where the attack raises that divergence.
    Attacks run in eval mode, from a random start.
    """

    eps: float
    norm: str = "linf"
    steps: int = 7
    method: str = "pgd"
    beta: float = 6.0

    def __post_init__(self) -> None:
        checks.number("eps", self.eps, 0)
        checks.choice("norm", self.norm, attacks.NORMS)
        checks.integer("steps", self.steps, low=1)
        checks.choice("method", self.method, ("pgd", "trades"))
        checks.number("beta", self.beta, 0)

    def __call__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> Result:
        if self.method == "pgd":
            attacked = attacks.pgd(model, x.clamp(0, 1), y, self.eps, norm=self.norm, steps=self.steps, seed=seed)
            return clean(model, attacked, y)
        attacked = _most_divergent(model, x.clamp(0, 1), self.eps, self.norm, self.steps, seed)
        logits = _logits(model, x)
        return F.cross_entropy(logits, y) + self.beta * _divergence(logits, model(attacked)), logits


@dataclass(frozen=True)
class HalfNoise:
    """Cross-entropy on inputs where a random half of the pixels got noise N(0, std²), the same for all channels."""

    std: float = 1.0

    def __post_init__(self) -> None:
        checks.number("std", self.std, 0)

    def __call__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> Result:
        rng = seeds.generator(seed, "half noise")
        chosen = (torch.rand(len(x), 1, *x.shape[2:], generator=rng) < 0.5).to(x.device)
        noise = (self.std * torch.randn(x.shape, generator=rng)).to(x)
        return clean(model, torch.where(chosen, (x + noise).clamp(0, 1), x), y)


@dataclass(frozen=True)
class OutlierExposure:
    """Cross-entropy, plus `weight` times the cross-entropy to the uniform distribution on outliers.

    Hendrycks et al. 2019, https://arxiv.org/abs/1812.04606. `outliers` (M, C, H, W); as many as inputs are drawn.
    """

    outliers: torch.Tensor
    weight: float = 0.5

    def __post_init__(self) -> None:
        checks.images(self.outliers, name="outliers")
        checks.number("weight", self.weight, 0)

    def __call__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, seed: int = 0) -> Result:
        if self.outliers.shape[1:] != x.shape[1:] or not len(self.outliers):
            expected, got = tuple(x.shape[1:]), tuple(self.outliers.shape)
            raise ValueError(f"outliers must be images of the inputs' shape {expected}, at least one, got {got}")
        drawn = torch.randint(len(self.outliers), (len(x),), generator=seeds.generator(seed, "outliers"))
        logits = _logits(model, torch.cat([x, self.outliers[drawn].to(x)]))
        inside, outside = logits.split(len(x))
        to_uniform = -outside.log_softmax(1).mean()
        return F.cross_entropy(inside, y) + self.weight * to_uniform, inside


def _logits(model, x):
    return checks.logits(model(x), x, finite=False)  # whoever trains sees from the loss whether all is finite


def _divergence(logits, other):
    """Return KL(p ‖ q), the mean over the batch."""
    return F.kl_div(other.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="batchmean")


def _most_divergent(model, x, eps, norm, steps, seed):
    """Return inputs within eps whose prediction diverges most from that of x (the inner maximum of TRADES)."""
    # At x itself the divergence is flat: start beside it.
    start = 0.001 * torch.randn(x.shape, generator=seeds.generator(seed, "trades")).to(x)
    attacked = (x + start).clamp(0, 1)
    with evaluating(model), torch.enable_grad():
        reference = _logits(model, x).detach()
        for _ in range(steps):
            attacked.requires_grad_()
            gradient = torch.autograd.grad(_divergence(reference, model(attacked)), attacked)[0]
            step = (2.5 * eps / steps) * attacks.steepest(gradient, norm)
            attacked = (x + attacks.projected(attacked.detach() + step - x, eps, norm)).clamp(0, 1)
    return attacked.detach()
