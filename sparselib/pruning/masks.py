"""Binary masks on weights, kept by the layer itself: `layer.weight` always reads as the masked weight.

A mask is a parametrization (torch.nn.utils.parametrize): the optimiser sees the unmasked tensor, every forward pass
multiplies it by the mask, removed weights get no gradient. Masks survive any training, deepcopy, state_dict and moves.
"""

import copy
import warnings

import torch
from torch import nn
from torch.nn.utils import parametrize

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear  # whose weights pruning may remove


class Mask(nn.Module):
    """weight ↦ weight ⊙ mask."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def prunable(model: nn.Module) -> dict[str, Layer]:
    """Return {parameter name: layer} of the weights that pruning may remove: of convolutions and linear layers.

    Names are those of the unmasked network ("conv1.weight"), masked or not. Raises ValueError when there is none.
    """
    layers = {f"{n}.weight" if n else "weight": m for n, m in model.named_modules() if isinstance(m, Layer)}
    if not layers:
        raise ValueError(f"model has no convolution or linear layer to prune: {type(model).__name__}")
    return layers


def mask_of(layer: nn.Module) -> torch.Tensor | None:
    """Return the layer's bool mask in the shape of its weight, or None when it has none."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    steps = layer.get_submodule("parametrizations.weight").children()
    return next((step.mask for step in steps if isinstance(step, Mask)), None)


def original(layer: Layer) -> torch.Tensor:
    """Return the trainable tensor behind `layer.weight`: the parameter that an optimiser sees."""
    masked = parametrize.is_parametrized(layer, "weight")
    return layer.get_parameter("parametrizations.weight.original") if masked else layer.weight


def set_mask(layer: Layer, mask: torch.Tensor) -> None:
    """Give `layer` the bool `mask` (the shape of its weight), in place of one it may have. Changes the layer."""
    weight, current = layer.weight, mask_of(layer)
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {tuple(weight.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    if current is not None:
        current.copy_(mask)
    else:
        parametrize.register_parametrization(layer, "weight", Mask(mask.to(weight.device)))


def bare(model: nn.Module) -> nn.Module:
    """Return a copy of the model without masks: removed weights are plain zeros."""
    copied = copy.deepcopy(model)
    for layer in prunable(copied).values():
        # By hand: `remove_parametrizations` takes `weight` from the layer's class, which its deep copies share.
        if parametrize.is_parametrized(layer, "weight"):
            weight, trainable = layer.weight.detach().clone(), original(layer).requires_grad
            del layer.parametrizations
            layer.__class__ = type(layer).__bases__[0]
            layer.weight = nn.Parameter(weight, requires_grad=trainable)
    return copied


def keep_highest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a bool mask in the shape of `scores` with exactly `count` ones, at the highest scores.

    Ties are cut by index, so the count is exact and the choice is the same on every run.
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.view(scores.shape)


def warn_emptied(names: list[str], what: str) -> None:
    """Warn that layers would lose their last `what` ("weight" or "unit") and keep it."""
    if names:
        warnings.warn(f"pruning would empty {', '.join(names)}: one {what} of each stays", stacklevel=4)
