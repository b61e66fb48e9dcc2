"""Which output units of a network belong together, and who reads them: what a structured cut must cut.

Residual sums couple channels of several layers; flattening spreads a channel over many inputs of the next layer.
Torch-Pruning (Fang et al. 2023, https://arxiv.org/abs/2301.12900) finds this by tracing one forward pass.
"""

from dataclasses import dataclass

import torch
import torch_pruning
from torch import nn

from sparselib import masks
from sparselib.models import evaluating


@dataclass(frozen=True)
class Group:
    """Units that stand or fall together, numbered 0 … size − 1.

    `writers` {layer name: rows (size, r)}: the output units of each layer that make the unit.
    `readers` {layer name: columns (size, c)}: the input slices of each layer that read it.
    """

    root: str
    size: int
    writers: dict
    readers: dict


def groups(model, example):
    """Return the Groups of all units that another prunable layer reads; the network's outputs are in none.

    Args:
        model: without masks (see `masks.bare`). example: inputs (N, C, H, W), traced in one forward pass.
    Raises: ValueError naming layers whose structure is not supported: convolutions in groups.
    """
    names = {layer: name for name, layer in masks.prunable(model).items()}
    grouped = [n for layer, n in names.items() if not isinstance(layer, nn.Linear) and layer.groups > 1]
    if grouped:
        raise ValueError(f"structured pruning does not support convolutions in groups: {', '.join(grouped)}")
    found = []
    for cut in _traced(model, example).get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
        size = len(set(cut[0].root_idxs))
        writers, readers = {}, {}
        for item in cut:
            layer = item.dep.target.module
            if layer in names:
                order = torch.tensor(item.root_idxs).argsort(stable=True)
                index = torch.tensor(item.idxs)[order].view(size, -1)
                side = readers if "in_channels" in item.dep.handler.__name__ else writers
                side[names[layer]] = index
        if readers:
            found.append(Group(names[cut[0].dep.target.module], size, writers, readers))
    return found


def cut(model, example, dead):
    """Remove units for real, in place. `dead` is {root layer name: unit numbers}; `model` is without masks."""
    layers = masks.prunable(model)
    graph = _traced(model, example)
    for root, units in dead.items():
        layer = layers[root]
        linear = isinstance(layer, nn.Linear)
        remove = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        graph.get_pruning_group(layer, remove, idxs=list(units)).prune()


def _traced(model, example):
    with evaluating(model), torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example[:1])
