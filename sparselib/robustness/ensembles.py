"""Deep ensembles: networks that vote with their probabilities (Lakshminarayanan et al. 2017, arXiv 1612.01474)."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from sparselib import checks
from sparselib.models import evaluating, on_device_of


class Ensemble(nn.Module):
    """The mean of the members' probabilities as one network, so that it can be attacked, certified and scored.

    Its logits are log p̄ with p̄ = (1/M)·Σ_m softmax(z_m): their softmax is p̄ itself.

    Args:
        members: at least 1 network from (N, C, H, W) to logits (N, K), all with the same K; shared, not copied.
    Raises: TypeError when a member is not an nn.Module; ValueError for no members, or, in use, when K differs.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        single = isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList)
        if single or not isinstance(members, Iterable):
            raise TypeError(f"members must be a list of networks, got {type(members).__name__}")
        if not (members := list(members)):
            raise ValueError("members must hold at least 1 network, got none")
        for position, member in enumerate(members):
            if not isinstance(member, nn.Module):
                raise TypeError(f"members[{position}] must be an nn.Module, got {type(member).__name__}")
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p̄ (N, K), computed without leaving the logarithms: finite however sure the members are."""
        return self._mean(self._logits(x).log_softmax(2))

    @checks.typed
    def disagreement(self, x: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
        """Return the mutual information (N,) in [0, log M] between the class and the member, in nats.

        H(p̄) − (1/M)·Σ_m H(p_m): 0 when all members say the same, log M when each is sure of another class; what every
        member is unsure of does not count (Depeweg et al. 2018, https://arxiv.org/abs/1710.07283). In eval mode.
        Raises: ValueError when a member lies on another device than x or gives logits that are not finite.
        """
        checks.images(x)
        checks.integer("batch_size", batch_size, low=1)
        for position, member in enumerate(self.members):
            on_device_of(member, x, name=f"x, to be scored by members[{position}],")
        with evaluating(self), torch.no_grad():
            return torch.cat([self._information(part) for part in x.split(batch_size)])

    def _logits(self, x):
        # Shapes only: looking at values would rule out torch.func.vmap.
        logits = [checks.logits(member(x), x, finite=False) for member in self.members]
        shapes = [tuple(z.shape) for z in logits]
        if len(set(shapes)) > 1:
            raise ValueError(f"members must all give logits (N, K) for the same K classes, got shapes {shapes}")
        return torch.stack(logits)  # (M, N, K)

    def _mean(self, log_p):
        return log_p.logsumexp(0) - math.log(len(self.members))  # (N, K)

    def _information(self, x):
        log_p = torch.stack([checks.logits(z, x) for z in self._logits(x)]).log_softmax(2)
        return (_entropy(self._mean(log_p)) - _entropy(log_p).mean(0)).clamp_min(0)  # rounding can make it −1e-8


def _entropy(log_p):
    return -(log_p.exp() * log_p).sum(-1)
