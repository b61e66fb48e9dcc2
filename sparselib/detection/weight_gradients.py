"""Gradients of one weight for every sample, from the inputs a and output gradients δ of its layer's calls.

Everything here takes calls (`per_sample.Call`) of one weight (O, …), with a (N, …) and δ (N, …) of all samples:

    g_n = Σ_p δ_np u_npᵀ        p: positions of a convolution (u_np: the patch under it), tokens of a linear layer

summed over the calls, and formed a block at a time.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

CONVOLUTIONS = {nn.Conv1d: conv1d_weight, nn.Conv2d: conv2d_weight, nn.Conv3d: conv3d_weight}


def channel_sums(calls):
    """Return Σ_p δ_nop (y_nop − b_o) = Σ_k θ_ok g_nok, the saliency of whole output units: (N, O)."""
    return _total(_channel_sum(call) for call in calls)


def _channel_sum(call):
    layer, y, bias = call.layer, call.y, call.layer.bias
    if y._version != call.version:  # an activation has overwritten the output
        weight = call.weight.value
        y = F.linear(call.a, weight) if call.linear else layer._conv_forward(call.a, weight, None)
    elif bias is not None:
        y = y - (bias if call.linear else bias.view(-1, *[1] * (y.ndim - 2)))
    if call.linear:
        return (call.delta * y).reshape(len(y), -1, y.shape[-1]).sum(1)
    return torch.linalg.vecdot(call.delta.flatten(2), y.flatten(2))


def outer_factors(calls):
    """Return δ (N, O) and u (N, K) where every g_n is the one outer product δ_n u_nᵀ, else None."""
    if len(calls) != 1 or calls[0].positions != 1 or calls[0].groups != 1:
        return None
    delta, u = _matrices(calls[0], slice(None))
    return delta.squeeze(2), u.squeeze(1)


def gradients(calls, limit):
    """Yield (rows, units, g): the gradients g (n, o, …) for a slice of the samples and a slice of the output units.

    A block is new memory, of about `limit` bytes or one unit of one sample, and so are the patches that it is made
    from; its strides are those of the weight's value. Every sample and unit is covered once, samples in order.
    """
    shape, n, size = calls[0].weight.value.shape, len(calls[0].delta), calls[0].delta.element_size()
    units, k = shape[0], shape[1:].numel()
    patches = sum(c.groups * k * c.positions for c in calls) * size  # of one sample
    if all(_zero_padded(c) and (_folds(c) or patches > limit) for c in calls):
        for rows in slices(n, limit // (units * k * size)):
            yield rows, slice(0, units), _total(_folded(c, rows) for c in calls)
        return
    whole, last = max(c.groups for c in calls) > 1, calls[0].weight.channels_last
    for rows in slices(n, limit // max(patches, (units if whole else min(units, 32)) * k * size)):
        m = rows.stop - rows.start
        factors = [_matrices(c, rows, last) for c in calls]  # (m·groups, O/groups, P), (m·groups, P, K)
        for block in [slice(0, units)] if whole else slices(units, limit // (m * k * size)):
            g = _total(torch.bmm(d[:, block], u) for d, u in factors)
            if last:
                yield rows, block, g.view(m, -1, *shape[2:], shape[1]).movedim(-1, 2)
            else:
                yield rows, block, g.view(m, -1, *shape[1:])


def slices(total, step):
    """Cut range(total) into slices of at most `step` (at least 1), as equal as can be."""
    count = -(-total // max(1, min(total, step)))
    edges = [total * i // count for i in range(count + 1)] if count else []
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def _total(parts):
    first, *others = parts
    for other in others:
        first += other
    return first


def _matrices(call, rows, last=False):
    """Return δ (n·groups, O/groups, P) and the patches u (n·groups, P, K) of some samples.

    The K values of a patch lie as in the weight, or with the channels last.
    """
    layer, a, delta, groups = call.layer, call.a[rows], call.delta[rows], call.groups
    n = len(delta)
    if call.linear:
        return delta.reshape(n, -1, delta.shape[-1]).transpose(1, 2), a.reshape(n, -1, a.shape[-1])
    dims = len(layer.kernel_size)
    padding = _padding(layer)
    if last:
        a, padding = a.movedim(1, -1), [0, 0, *padding]  # (n, *space, C)
    if any(padding):
        a = F.pad(a, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    first = 1 if last else 2
    for i in range(dims):
        span = (layer.kernel_size[i] - 1) * layer.dilation[i] + 1
        a = a.unfold(first + i, span, layer.stride[i])[..., :: layer.dilation[i]]
    # All patches as a view, copied by reshape. F.unfold knows only images, no groups, and takes several times as long.
    positions, kernel = range(first, first + dims), range(2 + dims, 2 + 2 * dims)
    delta = delta.reshape(n * groups, delta.shape[1] // groups, -1)
    if last:
        return delta, a.permute(0, *positions, *kernel, 1 + dims).reshape(n, call.positions, -1)
    return delta, a.permute(0, 1, *kernel, *positions).reshape(n * groups, -1, call.positions).transpose(1, 2)


def _padding(layer):
    """Return the padding as F.pad takes it: last dimension first, both sides."""
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [p for p in reversed(layer.padding) for _ in range(2)]


def _zero_padded(call):
    return not call.linear and call.layer.padding_mode == "zeros" and not isinstance(call.layer.padding, str)


def channels_last(call):
    """Whether patches are copied faster with the channels last: rows of few pixels, many channels (measured)."""
    shape = call.weight.value.shape
    return (
        not call.linear and call.groups == 1 and call.layer.padding_mode == "zeros"
        and shape[2:].numel() > 1 and shape[1] >= 8 and call.shape[-1] <= 16 and call.positions > 1 and not _folds(call)
    )  # fmt: skip


def _folds(call):
    """Whether a grouped convolution beats a product with the patches (measured).

    It does in oneDNN, for channels by eights, where the patches are several times as large as the gradient.
    """
    shape = call.weight.value.shape
    return (
        call.a.device.type == "cpu" and call.a.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        and shape[2:].numel() > 1 and (shape[1] % 8 == 0 or shape[1] == 1 < call.groups)
        and call.positions >= 2 * shape[0] // call.groups
    )  # fmt: skip


def _folded(call, rows):
    """Return g (n, O, …) as the weight gradient of one convolution whose groups are the samples' groups."""
    layer, a, delta = call.layer, call.a[rows], call.delta[rows]
    n, shape = len(a), call.weight.value.shape
    weight_gradient = next(f for base, f in CONVOLUTIONS.items() if isinstance(layer, base))
    g = weight_gradient(
        a.reshape(1, -1, *a.shape[2:]), (n * shape[0], *shape[1:]), delta.reshape(1, -1, *delta.shape[2:]),
        layer.stride, layer.padding, layer.dilation, n * layer.groups,
    )  # fmt: skip
    return g.view(n, *shape)
