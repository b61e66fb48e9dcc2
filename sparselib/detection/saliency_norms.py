"""The p-norm of one layer's saliency, for each sample, from blocks of it or in closed form.

Accurate in float32: sums over many weights are gathered per output unit and continued in float64, and powers are taken
of parts of the largest, so that they neither overflow nor underflow where it matters.
"""

import torch

from sparselib.detection import weight_gradients


def layer_norm(saliency, reference, inverse, p):
    """Return ‖S_n‖_p, or ‖(S_n − R)/σ‖_p, of one layer: (n,) in float64.

    Args:
        saliency: of one weight (O, …) on n samples, a `sensitivity._Saliency`; its blocks are overwritten.
        reference, inverse: R and 1/σ in the shape of S_n, or None.
        p: > 0, or infinity.
    """
    if saliency.calls and p != torch.inf and (reference is None or p == 2):
        factors = weight_gradients.outer_factors(saliency.calls)
        if factors is not None:
            return _outer_norm(*factors, saliency, reference, inverse, p)
    weight = saliency.weight.value
    by_unit = torch.zeros(len(saliency.unit), len(weight), dtype=torch.float64, device=weight.device)
    for rows, units, s in saliency.blocks:
        if reference is not None:
            s.sub_(reference[units])
        if inverse is not None:
            s.mul_(inverse[units])
        if s.ndim > 2:  # what belongs to one unit, in the order in which it lies in memory
            s = norm((s if s.is_contiguous() else s.movedim(2, -1)).flatten(2), p)
        by_unit[rows, units] = s.double()
    return norm(by_unit, p)


def _outer_norm(delta, u, saliency, reference, inverse, p):
    """The same without forming S_n = W ⊙ δ_n u_nᵀ of a linear layer (W: `saliency.factor`), in closed form.

    Σ_ij |W_ij δ_i u_j|^p = (|δ|^p)ᵀ |W|^p |u|^p; and with a reference, with V = 1/σ² and every product elementwise,
    Σ_ij V_ij (R_ij − S_ij)² = Σ V R² − 2 δᵀ (V R W) u + (δ²)ᵀ (V W²) u².
    """
    weight = saliency.factor if saliency.factor is not None else torch.ones_like(saliency.weight.value)
    weight = weight.flatten(1)  # (O, K)
    reference, inverse = (t if t is None else t.flatten(1) for t in (reference, inverse))
    tops = [t.abs().amax(-1, keepdim=True).clamp_min(_tiny(t)) for t in (delta, u)]
    total = torch.zeros(len(delta), dtype=torch.float64, device=delta.device)
    if reference is None:  # parts of size up to 1, whose powers do not overflow, nor underflow where it matters
        top = weight.abs().amax().clamp_min(_tiny(weight))
        delta, u = (_power(t / m, p) for t, m in zip((delta, u), tops, strict=True))
    else:
        delta, u = delta.double(), u.double()
    for units in weight_gradients.slices(len(weight), saliency.limit // (weight[0].nbytes or 1)):
        w = weight[units]
        if reference is None:
            total += ((delta[:, units] @ _power(w / top, p)) * u).sum(1)
            continue
        w, r = w.double(), reference[units].double()
        if inverse is not None:
            w, r = w * inverse[units], r * inverse[units]
        total += r.square().sum() - 2 * ((delta[:, units] @ (w * r)) * u).sum(1)
        total += ((delta[:, units].square() @ w.square()) * u.square()).sum(1)
    if reference is None:
        return total.pow(1 / p) * (tops[0] * tops[1]).squeeze(1).double() * top.double()
    return total.clamp_min(0).sqrt()


def norm(s, p):
    """Return ‖s‖_p over the last dimension, in float64. Overwrites s."""
    if p == 2:
        return torch.linalg.vector_norm(s, dim=-1).double()
    s = s.abs_()
    if p == 1:
        return s.sum(-1).double()
    top = s.amax(-1)
    if p == torch.inf:
        return top.double()
    s /= top.clamp_min(_tiny(s)).unsqueeze(-1)  # powers of parts of the largest do not underflow where it matters
    return top.double() * _power(s, p).sum(-1).double().pow(1 / p)


def _power(t, p):
    """Return |t|^p; whole powers by multiplication, which is several times faster."""
    if p == 2:
        return t.square()
    if p == 1:
        return t.abs()
    if p > 16 or p != int(p):
        return t.abs().pow(p)
    half = _power(t, int(p) // 2)
    return half * half * t.abs() if p % 2 else half * half


def _tiny(t):
    return torch.finfo(t.dtype).tiny
