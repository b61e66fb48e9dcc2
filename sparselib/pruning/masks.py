"""Binary masks on weights, kept by the layer itself: `layer.weight` always reads as the masked weight.

A mask is a parametrization (torch.nn.utils.parametrize): the optimiser sees the unmasked tensor, every forward pass
multiplies it by the mask, removed weights get no gradient. Masks survive any training, deepcopy, state_dict, moves and
pickling. A masked network's state_dict names tensors anew; that of `bare` fits a fresh network of the same class.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparselib import checks

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
    """Return {parameter name: layer} of all convolutions and linear layers, whose weights pruning may remove.

    Names are those of the unmasked network ("conv1.weight"), masked or not. Raises ValueError when there is none.
    """
    layers = {f"{n}.weight" if n else "weight": m for n, m in model.named_modules() if isinstance(m, Layer)}
    if not layers:
        raise ValueError(f"model has no convolution or linear layer to prune: {type(model).__name__}")
    return layers


def distinct(model: nn.Module) -> dict[str, Layer]:
    """Return the prunable layers that pruning works on: of layers that share one weight the first.

    Raises: ValueError as `prunable`, and for layers whose tensors are computed from others or not made yet.
    """
    found: dict[int, tuple[str, Layer]] = {}
    for name, layer in prunable(model).items():
        if remedy := _remedy(layer):
            raise ValueError(f"{name.removesuffix('weight')}{remedy}")
        found.setdefault(id(original(layer)), (name, layer))
    return dict(found.values())


def _remedy(layer):
    """Return what hinders masks on this layer and what to do about it, or None."""
    if any(nn.parameter.is_lazy(parameter) for parameter in layer.parameters(recurse=False)):
        return "weight has no shape yet: run the network once on an example first"
    for name, steps in getattr(layer, "parametrizations", {}).items():
        if name != "weight" or not all(isinstance(step, Mask) for step in steps):
            kinds = ", ".join(type(step).__name__ for step in steps)
            return f"{name} is computed by {kinds}: call torch.nn.utils.parametrize.remove_parametrizations first"
    parameters = dict(layer.named_parameters(recurse=False))
    for name in ("weight", "bias"):
        plain = name in parameters or parametrize.is_parametrized(layer, name)
        if not plain and getattr(layer, name, None) is not None:
            return (
                f"{name} is computed before each forward pass: make it a parameter again first, with "
                "torch.nn.utils.prune.remove, remove_weight_norm or remove_spectral_norm"
            )
    return None


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


def sharing(model: nn.Module, layer: Layer) -> list[Layer]:
    """Return the layers of the model that have the weight of `layer`, itself among them."""
    return [other for other in prunable(model).values() if original(other) is original(layer)]


def set_masks(model: nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
    """Give the layers of `distinct` their masks, by name, and those that share their weights the same ones."""
    by_weight = {id(original(layer)): kept[name] for name, layer in distinct(model).items()}
    for layer in prunable(model).values():
        set_mask(layer, by_weight[id(original(layer))])


def set_mask(layer: Layer, mask: torch.Tensor) -> None:
    """Give `layer` the bool `mask` (the shape of its weight), in place of one it may have. Changes the layer."""
    weight, current = layer.weight, mask_of(layer)
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {tuple(weight.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    if current is not None:
        current.copy_(mask)
    else:
        parametrize.register_parametrization(layer, "weight", Mask(mask.to(weight.device)))
        type(layer).__reduce_ex__ = _reduced  # the class that parametrize makes on the fly has no address


def _reduced(layer, protocol):
    """Pickle a masked layer as one of its plain class, and its mask."""
    state = dict(layer.__dict__)
    state["_parameters"] = {"weight": original(layer), **layer._parameters}
    state["_modules"] = {name: module for name, module in layer._modules.items() if name != "parametrizations"}
    return _restored, (type(layer).__bases__[0], state, mask_of(layer))


def _restored(kind, state, mask):
    layer = kind.__new__(kind)
    layer.__setstate__(state)
    set_mask(layer, mask)
    return layer


@checks.typed
def bare(model: nn.Module) -> nn.Module:
    """Return a copy of the model without masks: removed weights are plain zeros, shared weights stay shared."""
    distinct(model)  # refuses what cannot be copied, by name
    copied, made = copy.deepcopy(model), {}
    for layer in prunable(copied).values():
        # By hand: `remove_parametrizations` takes `weight` from the layer's class, which its deep copies share.
        if parametrize.is_parametrized(layer, "weight"):
            behind, weight = original(layer), layer.weight.detach().clone()
            del layer.parametrizations
            layer.__class__ = type(layer).__bases__[0]
            layer.weight = made.setdefault(behind, nn.Parameter(weight, requires_grad=behind.requires_grad))
    return copied


def keep_highest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Return a bool mask in the shape of `scores` with exactly `count` ones, at the highest scores.

    Ties are cut by index, so the count is exact and the choice is the same on every run.
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[:count]] = True
    return mask.view(scores.shape)
