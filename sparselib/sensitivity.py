"""Per-sample saliency: how much each weight matters to one input, reduced to a number per input."""

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from sparselib import checks, masks
from sparselib.models import evaluating

BUDGET = 256 * 2**20  # bytes of per-sample gradients held at a time


def snip_norm(model, x, y, *, norm=2, budget=BUDGET):
    """Return ‖θ ⊙ ∂L(x_n, y_n)/∂θ‖_p per input, over all prunable weights θ; L is the cross-entropy.

    Args:
        model: evaluated in eval mode and left as found. x: (N, C, H, W). y: int64 (N,), the targets of L.
        norm: p > 0, or infinity. budget: bytes of per-sample gradients to hold at most (one sample at least).
    Returns: (N,) in the dtype of x. A sample's value does not depend on the others of its batch.
    """
    checks.labels(y, checks.images(x))
    if norm != torch.inf:
        checks.number("norm", norm, 0, low_open=True)
    # Where a layer is masked, θ is the tensor behind the mask; θ ⊙ g is 0 for the removed weights either way.
    owner = {id(p): name for name, p in model.named_parameters()}
    names = {owner[id(masks.original(layer))] for layer in masks.prunable(model).values()}
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    weights = {n: p for n, p in parameters.items() if n in names}
    rest = {n: p for n, p in parameters.items() if n not in names}
    buffers = dict(model.named_buffers())

    def loss(weights, xi, yi):  # (C, H, W), ()
        logits = functional_call(model, (weights, rest, buffers), (xi.unsqueeze(0),))
        return F.cross_entropy(logits, yi.unsqueeze(0))

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))
    held = sum(w.numel() * w.element_size() for w in weights.values())
    chunk = max(1, int(budget // (2 * held)))  # the gradients and their product with the weights
    values = []
    with evaluating(model):
        for xs, ys in zip(x.split(chunk), y.split(chunk), strict=True):
            if not len(xs):
                return x.new_zeros(0)
            gradients = per_sample(weights, xs, ys)  # {name: (n, *weight.shape)}
            flat = torch.cat([(weights[n] * g).flatten(1) for n, g in gradients.items()], dim=1)
            values.append(torch.linalg.vector_norm(flat, ord=norm, dim=1))
    return torch.cat(values)
