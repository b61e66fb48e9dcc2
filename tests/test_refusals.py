"""Five hundred wrong calls drawn at random: each is refused by a ValueError or TypeError that names the argument."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import data, models
from sparselib.detection import detectors, metrics

TINY = data.load("digits", limit=60)
NET = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=2)
BUILD = {"name": "convnet", "in_channels": 1, "num_classes": 10, "image_size": 8}
OUTSIDE = data.outliers("uniform", TINY, n=5)
FITTED = {name: detectors.build(name).fit(NET, TINY) for name in detectors.NAMES}


def _text(rng):
    return rng.choice(
        [None, 3, b"digits", "", "".join(rng.choices("abc xyz\0", k=rng.randint(1, 9))), ["digits"], True]
    )


def _thing(rng):
    return rng.choice([None, "thing", 0.5, object(), [], {}, nn.Linear, np.ones(3), lambda x: x])


def _no_number(rng):
    return rng.choice(["1", b"1", [1], {}, True, float("nan"), -float("inf"), 1j, torch.ones(2), np.ones(2)])


def _above(low):
    """Draw what is no number, or one not above `low`."""
    return lambda rng: rng.choice([_no_number(rng), low - rng.random() * 10 ** rng.randint(0, 6), -float("inf")])


def _count(rng):
    return rng.choice([None, _given(rng)])


def _given(rng):
    return rng.choice([_no_number(rng), rng.randint(-(10**6), 0), rng.random() + 1, float("inf")])


def _images(rng):
    x = torch.rand(rng.randint(1, 5), 1, 8, 8)
    spoilt = x.clone()
    spoilt.view(-1)[rng.randrange(x.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])
    return rng.choice([spoilt, x[0], x[:, 0], x[..., None], x.long(), x.bool(), x.numpy(), x.tolist(), x + 1j, None, 3])


def _shaped(rng):
    return rng.choice([_images(rng), torch.rand(2, rng.randint(2, 4), 8, 8), torch.rand(2, 1, 8, rng.randint(9, 12))])


def _unit_images(rng):
    return rng.choice([_images(rng), TINY.x * rng.uniform(1.1, 300), TINY.x - rng.random() - 0.01])


def _labels(rng):
    y = TINY.y
    return rng.choice([y + 10, y - 10, y[1:], y[None], y.float(), y.int(), y.tolist(), y.numpy(), None, 3, "y"])


def _classes(rng):
    return rng.choice([None, 3, "01", (), tuple("012"), tuple("0123456788"), list("0123456789")])


def _scores(rng):
    v = torch.rand(rng.randint(2, 6))
    spoilt = v.clone()
    spoilt[rng.randrange(len(v))] = rng.choice([float("nan"), float("inf")])
    return rng.choice([spoilt, v[:0], v[None], v + 1j, v > 0.5, v[0], None, "s", ["a"], 3, [[1.0]]])


def _samples(rng):
    return rng.choice([_thing(rng), TINY.x, (TINY.x, TINY.y), TINY.take(slice(0, 0))])


OPTIONS = {
    ("energy", "temperature"): _above(0), ("odin", "temperature"): _above(0), ("odin", "eps"): _above(-1e-9),
    ("knn", "k"): _count, ("vim", "dimensions"): _given, ("dice", "p"): _above(-1e-9),
    ("react", "percentile"): _above(0), ("ash", "percentile"): _above(-1e-9), ("ash", "variant"): _text,
    ("sensnorm", "criterion"): _text, ("sensnorm", "norm"): _above(0), ("sensnorm", "target"): _text,
    ("sensnorm", "aggregate"): _text, ("sensnorm", "views"): _count, ("gradnorm", "layers"): _text,
    ("profile", "criterion"): _text,
}  # fmt: skip
# (function, its right arguments, {argument: what draws a wrong value})
CALLS = [
    (data.load, {"name": "digits"}, {"name": _text, "split": _text, "limit": _given}),
    (data.Samples, {"x": TINY.x, "y": TINY.y, "classes": TINY.classes, "name": "n"},
     {"x": _unit_images, "y": _labels, "classes": _classes}),
    (data.balanced, {"samples": TINY, "n": 10}, {"samples": _samples, "n": _count}),
    (data.overlap, {"first": TINY, "second": TINY}, {"first": _thing, "second": _thing}),
    (data.outliers, {"name": "uniform", "like": TINY}, {"name": _text, "like": _samples, "split": _text}),
    (TINY.only, {"classes": ["1"]}, {"classes": lambda rng: rng.choice([None, 3, "1", ["x"], ["1", "1"], [1]])}),
    (TINY.split, {"fraction": 0.5}, {"fraction": _above(0)}),
    (models.build, BUILD, {"name": _text, "in_channels": _count, "num_classes": _count, "image_size": _count,
                           "std": lambda rng: rng.choice([0, -rng.random(), "x", [], [1.0, 1.0], [None]])}),
    (models.load, {"source": "torch.nn:Identity"},
     {"source": _text, "weights": lambda rng: rng.choice([3, "/nonexistent/w.pt", b"w", [], "."])}),
    (models.answers, {"model": NET, "shape": (1, 8, 8), "classes": 10},
     {"model": _thing, "shape": lambda rng: rng.choice([(3, 8, 8), (1, 8), (), None, "abc", (0, 8, 8), (1, -8, 8)]),
      "classes": lambda rng: rng.choice([_no_number(rng), rng.randint(11, 99)])}),
    (detectors.build, {"name": "msp"}, {"name": _text}),
    (detectors.register, {"name": "mine"}, {"name": lambda rng: rng.choice([None, 3, "", "a b", "a:1", b"a", ["a"]])}),
    (metrics.auroc, {"id_scores": [0.0], "ood_scores": [1.0]}, {"id_scores": _scores, "ood_scores": _scores}),
    (metrics.aupr, {"id_scores": [0.0], "ood_scores": [1.0]}, {"ood_scores": _scores, "positive": _text}),
    (metrics.fpr_at_95_tpr, {"id_scores": [0.0], "ood_scores": [1.0]}, {"id_scores": _scores, "positive": _text}),
    *((fitted.score, {"x": TINY.x}, {"x": _shaped}) for fitted in FITTED.values()),
    *((detectors.build(name).fit, {"model": NET, "train": TINY},
       {"model": _thing, "train": lambda rng: rng.choice([TINY.x, 3, "digits", (TINY.x, TINY.y), OUTSIDE])})
      for name in ("mahalanobis", "knn", "vim", "react", "dice", "profile")),
    *((detectors.build, {"name": name}, {option: draw}) for (name, option), draw in OPTIONS.items()),
]  # fmt: skip


# An unknown name is told by what it is of: "unknown detector …".
NAMES = {data.load: "dataset", data.outliers: "outliers", models.build: "model", detectors.build: "detector"}


def _refusal(function, arguments, argument):
    """Return None for a refusal that names the argument, else what happened."""
    try:
        function(**arguments)
    except (ValueError, TypeError) as error:
        said = str(error)
        named = argument.rstrip("s") in said or argument == "name" and f"unknown {NAMES.get(function)}" in said
        return None if named else f"says {said}"
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    return "is accepted"


@pytest.mark.parametrize("seed", range(5))
def test_wrong_calls_are_refused_by_name(seed):
    rng, failures = random.Random(seed), []
    before = {name: tensor.clone() for name, tensor in NET.state_dict().items()}
    for _ in range(100):
        function, good, wrong = rng.choice(CALLS)
        argument = rng.choice(list(wrong))
        value = wrong[argument](rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            happened = _refusal(function, {**good, argument: value}, argument)
        if happened:
            failures.append(f"{function.__qualname__}({argument}={str(value)[:60]!r}) {happened[:150]}")
    assert not failures, "\n".join(failures)
    assert NET.training and all(torch.equal(tensor, before[name]) for name, tensor in NET.state_dict().items())
