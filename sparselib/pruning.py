"""Remove the least important weights, or whole units, of a network."""

import copy
import warnings

import torch

from sparselib import channels, checks, criteria, masks

SCOPES = ("global", "layer")


def prune(
    model, criterion, sparsity, x=None, y=None, *, structured=False, scope="global", rounds=1, seed=0, batch_size=256
):  # fmt: skip
    """Return a copy of the model in which the fraction `sparsity` of its prunable weights is masked.

    Args:
        model: left untouched. Weights it has already lost stay lost.
        criterion: how weights or units are ranked; see `criteria.saliency`, which also gets x, y, seed, batch_size.
        sparsity: in [0, 1), the fraction of the prunable weights (of convolutions and linear layers) removed.
        structured: remove whole output units, with the inputs of the layers that read them.
        scope: "global" ranks the whole network; "layer" removes the same fraction of each layer.
        rounds: repeat scoring and removing; after round k the density is density^(k/rounds) (exponential schedule).
    Unstructured, exactly round((1 − sparsity)·N) weights survive, also when scores tie. Structured, as close as whole
    units allow. No layer is ever emptied: its last weight or unit stays, and a warning names the layer.
    Raises: ValueError for arguments out of range, layers that are not supported, scores that are not finite.
    """
    checks.number("sparsity", sparsity, 0, 1, high_open=True)
    checks.choice("scope", scope, SCOPES)
    checks.integer("rounds", rounds, low=1)
    pruned = copy.deepcopy(model)
    step_to(pruned, criterion, sparsity, x, y, structured=structured, scope=scope, rounds=rounds, seed=seed,
            batch_size=batch_size)  # fmt: skip
    return pruned


def step_to(model, criterion, sparsity, x=None, y=None, *, rounds=1, seed=0, **options):
    """Prune in place in `rounds` steps of exponentially falling density. Arguments as `prune`."""
    start = _density(model)
    for k in range(1, rounds + 1):
        density = start * min(1.0, (1 - sparsity) / start) ** (k / rounds)
        step(model, criterion, 1 - density, x, y, seed=seed + k - 1, **options)


def step(model, criterion, sparsity, x=None, y=None, *, structured=False, scope="global", seed=0, batch_size=256):
    """Prune once, in place: for schedules that prune while they train. Arguments as `prune`.

    An optimiser that holds the model's parameters goes on with the same tensors.
    """
    scores = criteria.saliency(model, criterion, x, y, structured=structured, seed=seed, batch_size=batch_size)
    if structured:
        kept = _surviving_units(model, scores, sparsity, scope, _example(model, x))
    else:
        kept = _surviving_weights(model, scores, sparsity, scope)
    for name, layer in masks.prunable(model).items():
        earlier = masks.mask_of(layer)
        masks.set_mask(layer, kept[name] if earlier is None else kept[name] & earlier)


def sparsity(model):
    """Return the fraction in [0, 1] of the prunable weights that are masked."""
    return 1 - _density(model)


def _density(model):
    kept = total = 0
    for layer in masks.prunable(model).values():
        mask = masks.mask_of(layer)
        total += layer.weight.numel()
        kept += layer.weight.numel() if mask is None else int(mask.sum())
    return kept / total


def shrink(model, example=None):
    """Return a physically smaller network that computes the same: units that nobody reads are cut out.

    Args:
        model: pruned with `structured=True`; left untouched. Other masks stay, on the weights that are left.
        example: inputs (N, C, H, W) to trace the network with; not needed for networks of `models.build`.
    """
    small = masks.bare(model)
    example = _example(model, example)
    before = masks.prunable(model)
    dead = {}
    for group in channels.groups(small, example):
        unread = torch.ones(group.size, dtype=torch.bool)
        for name, columns in group.readers.items():
            mask = masks.mask_of(before[name])
            read = torch.ones(columns.max() + 1, dtype=torch.bool) if mask is None else _by_column(mask).any(0).cpu()
            unread &= ~read[columns].any(1)
        if unread.any():
            dead[group.root] = unread.nonzero().flatten().tolist()
    channels.cut(small, example, dead)  # keeps .spec: checkpoints reads the sizes off the stored tensors
    for name, layer in masks.prunable(small).items():
        if masks.mask_of(before[name]) is not None and not layer.weight.all():
            masks.set_mask(layer, layer.weight != 0)
    return small


def _surviving_weights(model, scores, sparsity, scope):
    """Return {name: bool mask} with exactly round((1 − sparsity)·N) survivors, but one in every layer at least."""
    scores = dict(scores)
    for name, layer in masks.prunable(model).items():
        if (mask := masks.mask_of(layer)) is not None:
            scores[name] = scores[name].masked_fill(~mask, -torch.inf)
    density = 1 - sparsity
    if scope == "layer":
        counts = {name: round(density * s.numel()) for name, s in scores.items()}
        _warn_clamped([name for name, count in counts.items() if not count], "weight")
        return {name: masks.keep_highest(s, max(1, counts[name])) for name, s in scores.items()}
    flat = torch.cat([s.flatten() for s in scores.values()])
    sizes = [s.numel() for s in scores.values()]
    count = round(density * len(flat))
    kept = masks.keep_highest(flat, count)
    emptied = [name for name, part in zip(scores, kept.split(sizes), strict=True) if not part.any()]
    if emptied:  # the best weight of every layer goes first, so the count stays exact wherever it can
        _warn_clamped(emptied, "weight")
        for part in flat.split(sizes):
            part[part.argmax()] = torch.inf  # a view of flat
        kept = masks.keep_highest(flat, max(count, len(sizes)))
    return {n: part.view(scores[n].shape) for n, part in zip(scores, kept.split(sizes), strict=True)}


def _surviving_units(model, scores, sparsity, scope, example):
    """Return {name: bool mask} after removing units, lowest score first, until the sparsity is as near as can be."""
    layers = masks.prunable(model)
    shapes = {name: layer.weight.shape for name, layer in layers.items()}
    rows = {name: _alive(layer, 0) for name, layer in layers.items()}  # (out,) bool: units that are left
    columns = {name: _alive(layer, 1) for name, layer in layers.items()}  # (in,) bool: inputs that are left
    area = {name: shape[2:].numel() for name, shape in shapes.items()}
    total = sum(shape.numel() for shape in shapes.values())

    earlier = {name: masks.mask_of(layer) for name, layer in layers.items()}
    cells = {  # (out, in): how many weights of each pair of units are left
        name: torch.full(shapes[name][:2], area[name]) if m is None else m.reshape(*m.shape[:2], -1).sum(2).cpu()
        for name, m in earlier.items()
    }

    queue, left = [], {}
    found = channels.groups(masks.bare(model), example)
    for number, group in enumerate(found):
        score = sum(scores[name].cpu()[index].double().mean(1) for name, index in group.writers.items())
        alive = torch.stack([columns[name][index].any(1) for name, index in group.readers.items()]).any(0)
        left[number] = int(alive.sum())
        if scope == "layer":  # the rank within the group, as a fraction of its size
            score = score.masked_fill(~alive, -torch.inf).argsort().argsort().double() / group.size
        queue += [(float(score[unit]), number, unit) for unit in alive.nonzero().flatten().tolist()]
    removed = total - sum(int(cells[n][rows[n]][:, columns[n]].sum()) for n in layers)
    clamped = set()
    for _, number, unit in sorted(queue):
        group = found[number]
        if left[number] == 1:
            clamped.add(group.root)
            continue
        gain, gone = 0, []  # weights that go with the unit; (flags, positions) to put back
        for name, index in group.writers.items():
            r = index[unit][rows[name][index[unit]]]
            gain += int(cells[name][r][:, columns[name]].sum())
            gone.append((rows[name], r))
            rows[name][r] = False
        for name, index in group.readers.items():
            c = index[unit][columns[name][index[unit]]]
            gain += int(cells[name][:, c][rows[name]].sum())
            gone.append((columns[name], c))
            columns[name][c] = False
        if abs(removed + gain - sparsity * total) >= abs(removed - sparsity * total):  # one too far
            for flags, positions in gone:
                flags[positions] = True
            continue  # a smaller one may still bring it closer
        removed += gain
        left[number] -= 1
    _warn_clamped(sorted(clamped), "unit")
    return {
        name: (rows[name][:, None] & columns[name])
        .view(shape[0], shape[1], *[1] * (len(shape) - 2))
        .expand(shape)
        .clone()
        .to(layers[name].weight.device)
        for name, shape in shapes.items()
    }


def _alive(layer, dimension):
    """Return which output units (0) or inputs (1) of a layer have a weight left, (out,) or (in,) bool on the CPU."""
    mask = masks.mask_of(layer)
    if mask is None:
        return torch.ones(layer.weight.shape[dimension], dtype=torch.bool)
    return (mask.flatten(1).any(1) if dimension == 0 else _by_column(mask).any(0)).cpu()


def _by_column(mask):
    """Return the mask as (rest, in)."""
    return mask.transpose(0, 1).flatten(1).T


def _example(model, x):
    """Return one input for tracing: the first of x, or zeros in the shape that the network was built for."""
    device = next(model.parameters()).device
    if x is not None and len(x):
        return x[:1].to(device)
    spec = getattr(model, "spec", None)
    if spec is None:
        raise ValueError("structured pruning needs x to trace a network that is not one of models.build, got None")
    dtype = next(model.parameters()).dtype
    return torch.zeros(1, spec["in_channels"], spec["image_size"], spec["image_size"], dtype=dtype, device=device)


def _warn_clamped(names, what):
    if names:
        warnings.warn(f"pruning would empty {', '.join(names)}: one {what} of each stays", stacklevel=4)
