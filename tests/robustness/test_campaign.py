"""Calls with several wrong arguments at once, drawn by a seed: each is refused by name, or finite and within bounds."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import data, models, training
from sparselib.robustness import attacks, certify, ensembles, objectives, sanity, shifts

FEW = data.load("digits", limit=6)
X, Y = FEW.x, FEW.y
NET = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=2)
ONE = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
NAN, INF = float("nan"), float("inf")

NUMBERS = ["0.1", None, NAN, INF, -INF, -1, 1e300, 0, True, 1j, [0.1], np.array([0.1]), torch.ones(2), object()]
FEASIBLE = [*NUMBERS, 1.5, -(2**70), np.float64(2), torch.tensor(1.0)]
COUNTS = [*FEASIBLE, 10**400]
NETS = [None, "net", nn.Linear, ONE, nn.Identity(), nn.Flatten(), lambda x: x, X, NET.half, nn.Sequential()]
IMAGES = [
    None, 3, "x", X.numpy(), X[0], X[:, 0], X[:0], (X * 255).byte(), X * 255, X - 1, X * NAN, X.half(), X.double(),
    X.bfloat16(), X.to(torch.complex64), X.to("meta"), X.to_sparse(), X[:, :, :0], X.repeat(1, 3, 1, 1), [X], iter([X]),
    X.to(torch.float8_e5m2), X.expand(2, *X.shape), X.clone().requires_grad_(),
]  # fmt: skip
LABELS = [None, "y", Y.int(), Y.float(), Y.numpy(), Y.tolist(), Y[:2], Y + 10, -1 - Y, Y[:0], Y[:, None], Y.to("meta")]
SAMPLES = [None, 5, "digits", X, (X, Y), [X], [(X, Y[:2])], [(X, None)], [(X, Y, Y)], [{"x": X}], FEW.take(slice(0, 0))]
NAMES = [None, 0, "", "l1", b"l2", ["linf"], {}, torch.ones(1), "linf ", "LINF", NAN]
FLAGS = [None, 0, "no", torch.tensor(True), []]

ATTACK = {"model": NETS, "x": IMAGES, "y": LABELS, "eps": NUMBERS, "norm": NAMES, "targeted": FLAGS}
ATTACKED = {"model": NET, "x": X, "y": Y, "eps": 0.1}
CALLS = {
    attacks.fgsm: (ATTACKED, ATTACK),
    attacks.pgd: (
        {**ATTACKED, "steps": 1},
        {**ATTACK, "steps": FEASIBLE, "step_size": NUMBERS, "loss": NAMES,
         "random_start": FLAGS, "early_stop": FLAGS, "seed": COUNTS},
    ),
    certify.certify: (
        {"model": NET, "x": X[:1], "sigma": 0.2, "n0": 1, "n": 2},
        {"model": NETS, "x": IMAGES, "sigma": NUMBERS, "n0": COUNTS, "alpha": NUMBERS, "batch_size": COUNTS,
         "seed": COUNTS},
    ),
    certify.lower_bound: ({"k": 1, "n": 2, "alpha": 0.1}, {"k": COUNTS, "n": COUNTS, "alpha": NUMBERS}),
    certify.radius_cap: ({"sigma": 1, "n": 2, "alpha": 0.1}, {"sigma": NUMBERS, "n": COUNTS, "alpha": NUMBERS}),
    shifts.corrupt: (
        {"x": X, "kind": "fog", "severity": 1}, {"x": IMAGES, "kind": NAMES, "severity": COUNTS, "seed": COUNTS}
    ),
    ensembles.Ensemble: ({"members": [NET]}, {"members": [*NETS, *([net] for net in NETS[:3]), [], 3]}),
    ensembles.Ensemble([NET, NET]).disagreement: ({"x": X}, {"x": IMAGES, "batch_size": COUNTS}),
    sanity.check: (
        {"model": NET, "samples": FEW.take(slice(0, 2))},
        {"model": NETS, "samples": SAMPLES, "eps": NUMBERS, "norm": NAMES, "seed": COUNTS, "transfer_from": NETS},
    ),
    objectives.Adversarial: (
        {"eps": 0.1}, {"eps": NUMBERS, "norm": NAMES, "steps": COUNTS, "method": NAMES, "beta": NUMBERS}
    ),
    objectives.HalfNoise: ({}, {"std": NUMBERS}),
    objectives.OutlierExposure: ({"outliers": X}, {"outliers": IMAGES, "weight": NUMBERS}),
    training.logits: ({"model": NET, "x": X}, {"model": NETS, "x": [*IMAGES, *SAMPLES[4:]], "batch_size": COUNTS}),
    training.accuracy: ({"model": NET, "samples": FEW}, {"model": NETS, "samples": SAMPLES, "batch_size": COUNTS}),
    training.restate_batch_norm: (
        {"model": models.build(**NET.spec), "samples": FEW}, {"model": NETS, "samples": SAMPLES, "batch_size": COUNTS}
    ),
    training.fit: (
        {"model": models.build(**NET.spec), "train": FEW, "epochs": 1, "progress": False},
        {"model": NETS, "train": SAMPLES, "epochs": FEASIBLE, "batch_size": COUNTS,
         "lr": NUMBERS, "weight_decay": NUMBERS, "noise": NUMBERS, "adversarial": NUMBERS[:-1], "seed": COUNTS,
         "after_epoch": NUMBERS, "progress": FLAGS},
    ),
}  # fmt: skip


def outcome(function, good, wrong):
    """Return what is wrong with the answer to a call with these wrong arguments; None if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = function(**{**good, **wrong})
    except (ValueError, TypeError) as error:
        return None if any(name in str(error) for name in (*wrong, *good)) else f"vague {error!r}"
    except FloatingPointError as error:  # of training, which names the rate
        return None if "lower lr" in str(error) else f"{error!r}"
    except Exception as error:
        return f"{error!r}"
    tensors = [t for t in (found if isinstance(found, tuple) else (found,)) if isinstance(t, torch.Tensor)]
    return None if all(torch.isfinite(t).all() for t in tensors) else "not finite"


@pytest.mark.parametrize("seed", range(2))
def test_wrong_arguments_are_refused_by_name(seed):
    rng, odd = random.Random(seed), []
    state = {key: value.clone() for key, value in NET.state_dict().items()}
    before = torch.get_rng_state()
    for _ in range(300):
        function = rng.choice(list(CALLS))
        good, kinds = CALLS[function]
        chosen = rng.sample(list(kinds), min(len(kinds), rng.choice((1, 1, 2, 3))))
        wrong = {name: rng.choice(kinds[name]) for name in chosen}
        if said := outcome(function, good, wrong):
            odd.append(f"{function.__qualname__} {str(wrong)[:160]}: {said[:200]}")
    assert not odd, "\n".join(odd)
    assert all(torch.equal(value, state[key]) for key, value in NET.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in NET.parameters()) and NET.training
    assert torch.equal(torch.get_rng_state(), before)
