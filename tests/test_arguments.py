"""Every public function, every argument, some twenty kinds of wrong values: an error that names it, or nothing.

The tables below say how each function is called rightly and what is wrong for an argument of each kind. A wrong call
must end in a ValueError or TypeError whose message names the argument, and change nothing.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import checkpoints, data, models, pruning, training
from sparselib.detection import detectors, metrics, sensitivity
from sparselib.pruning import costs, criteria, masks, schedules, subnetworks
from sparselib.robustness import attacks, certify, ensembles, sanity, shifts

TINY = data.load("digits", limit=40)
X, Y = TINY.x[:6], TINY.y[:6]
NAN, INF = float("nan"), float("inf")


def network():
    return models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=2)


class Returns(nn.Module):
    """A network that answers with what a function makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = network(), change

    def forward(self, x):
        return self.change(self.net(x))


NOT_NUMBERS = ["0.5", None, [0.5], {}, b"1", 1j, True, NAN, -INF, np.array([1.0, 2.0]), torch.ones(2), "ten", object()]
NOT_TEXT = [None, 3, 0.5, b"digits", ["magnitude"], "", "nonsense", "magnitude ", "\0", {}, torch.ones(1), True]
NOT_FLAGS = [None, "yes", 2, 0.5, [], torch.ones(2), "False"]
NOT_MODELS = [None, "convnet", 3, nn.Linear, [], torch.ones(2), X, lambda x: x]
ODD_MODELS = [
    Returns(lambda z: {"logits": z}), Returns(lambda z: (z, z)), Returns(lambda z: z[0]), Returns(lambda z: z[:, :1]),
    Returns(lambda z: z.sum()), Returns(lambda z: z * NAN), Returns(lambda z: z.argmax(1)), Returns(lambda z: None),
]  # fmt: skip
NOT_IMAGES = [
    None, "x", 3, [[0.5]], X.numpy(), X[0], X[:, 0], (X * 255).byte(), X.long(), X * NAN, X.clone().fill_(INF),
    X.to(torch.complex64), X.bool(), X[:, :, :0], TINY,
]  # fmt: skip
NOT_UNIT_IMAGES = [*NOT_IMAGES, X * 255, X - 0.5]
NOT_LABELS = ["y", 3, Y.float(), Y[:3], Y[None], Y + 9, Y - 10, Y.numpy(), Y.tolist(), Y.bool()]
NOT_SAMPLES = [None, "digits", 3, (X, Y), X, [TINY]]
WRONG = {
    "model": NOT_MODELS, "net": NOT_MODELS, "dense": NOT_MODELS, "odd_model": [*NOT_MODELS, *ODD_MODELS],
    "x": NOT_IMAGES, "unit_x": NOT_UNIT_IMAGES, "example": [v for v in NOT_IMAGES if v is not None],
    "y": NOT_LABELS, "needed_y": [None, *NOT_LABELS], "train": [*NOT_SAMPLES, TINY.take(slice(0, 0))],
    "samples": NOT_SAMPLES, "fraction": [*NOT_NUMBERS, 1.0, 1.5, -0.1, INF], "open_fraction": [*NOT_NUMBERS, 0, 1, 1.5],
    "number": [*NOT_NUMBERS, -1.0, INF], "positive": [*NOT_NUMBERS, -1.0, 0, INF],
    "count": [*NOT_NUMBERS, 0, -1, 1.5, INF], "natural": [*NOT_NUMBERS, -1, 1.5, INF],
    "share": [*NOT_NUMBERS, -0.1, 1.5, INF],
    "severity": [*NOT_NUMBERS, 0, 6, 2.5], "seed": [*NOT_NUMBERS, 1.5, INF], "name": NOT_TEXT, "flag": NOT_FLAGS,
    "scores": [None, "s", 3, [], [[1.0]], [NAN], torch.ones(2, 2), torch.ones(0), ["a"], 1j * torch.ones(2)],
    "path": [None, 3, b"x", "", "\0", [], torch.ones(1)],
    "classes": [None, 3, "a", ["nonsense"], ["1", "1"]],
    "norm": [*NOT_NUMBERS, 0, -1],
    "layers": [None, 3, "nonsense", [], ["nonsense"], ["1.weight", "1.weight"], [3]],
    "tensors": [3, "x", [], {}, {"1.weight": X}, {"nonsense": X}],
}  # fmt: skip
OPTIONAL = {name: [v for v in values if v is not None] for name, values in WRONG.items()}

NET, STATE = network(), network().state_dict()
PRUNE = {
    "model": "model", "criterion": "name", "sparsity": "fraction", "x": OPTIONAL["x"], "y": "y", "scope": "name",
    "structured": "flag", "rounds": OPTIONAL["count"], "least": "share", "seed": "seed", "batch_size": "count",
}  # fmt: skip
ATTACK = {"model": "odd_model", "x": "unit_x", "y": "needed_y", "eps": "number", "norm": "name"}
TRAIN = {"train": "train", "batch_size": "count", "lr": "positive", "seed": "seed"}
SALIENCY = {
    "model": "odd_model", "x": "x", "y": "y", "criterion": "name", "target": "name", "layers": "layers",
    "per_loss": "flag", "budget": "count",
}  # fmt: skip
SCORES = {"id_scores": "scores", "ood_scores": "scores"}


def example(function, kinds, **good):
    name = (
        " ".join([function.func.__name__, *function.args]) if isinstance(function, partial) else function.__qualname__
    )
    return pytest.param(function, good, kinds, id=name)


def fitted(name):
    return detectors.build(name).fit(NET, TINY)


SCORED = fitted("msp")
CALLS = [
    example(pruning.prune, PRUNE, model=NET, criterion="snip", sparsity=0.5, x=X, y=Y),
    example(pruning.sparsity, {"model": "model"}, model=NET),
    example(pruning.shrink, {"model": "model", "example": OPTIONAL["example"]}, model=NET, example=X),
    example(
        criteria.saliency, {k: PRUNE[k] for k in PRUNE if k not in ("sparsity", "scope", "rounds", "least")},
        model=NET, criterion="snip", x=X, y=Y,
    ),
    example(costs.cost, {"model": "model", "example": "example", "repeats": "count"}, model=NET, example=X, repeats=1),
    example(masks.bare, {"model": "model"}, model=NET),
    example(
        schedules.train_sparse,
        {**TRAIN, "model": "model", "criterion": "name", "sparsity": "fraction", "when": "name", "epochs": "count",
         "finetune_epochs": "natural", "finetune_lr": "positive", "limit": "fraction", "scored": "count",
         "rounds": OPTIONAL["count"], "rewind": [*NOT_NUMBERS, -1, 1, 0.5, INF], "scope": "name", "structured": "flag"},
        model=NET, train=TINY, criterion="magnitude", sparsity=0.5, epochs=1, finetune_epochs=0, progress=False,
    ),
    example(
        schedules.finetuned,
        {**TRAIN, "dense": "model", "criterion": "name", "sparsity": "fraction", "epochs": "natural",
         "rounds": OPTIONAL["count"]},
        dense=NET, train=TINY, criterion="magnitude", sparsity=0.5, epochs=0, progress=False,
    ),
    example(
        subnetworks.search,
        {**TRAIN, "model": "model", "sparsity": "fraction", "objective": "name", "eps": "number", "noise": "number",
         "epochs": "natural", "lr": OPTIONAL["positive"], "scope": "name", "init": "name", "batch_norm": "name",
         "keep_ends": "flag", "outliers": OPTIONAL["samples"]},
        model=NET, train=TINY, sparsity=0.5, epochs=0, progress=False,
    ),
    example(
        subnetworks.fit_batch_norm,
        {**TRAIN, "model": "model", "objective": "name", "eps": "number", "noise": "number", "epochs": "natural",
         "outliers": OPTIONAL["samples"]},
        model=NET, train=TINY, epochs=0, progress=False,
    ),
    example(attacks.fgsm, {**ATTACK, "targeted": "flag"}, model=NET, x=X, y=Y, eps=0.1),
    example(
        attacks.pgd,
        {**ATTACK, "steps": "count", "step_size": OPTIONAL["number"], "restarts": "count", "loss": "name",
         "random_start": "flag", "targeted": "flag", "early_stop": "flag", "seed": "seed"},
        model=NET, x=X, y=Y, eps=0.1, steps=1,
    ),
    example(
        attacks.multitargeted,
        {**ATTACK, "steps": "count", "step_size": OPTIONAL["number"], "restarts": "count", "random_start": "flag",
         "seed": "seed"},
        model=NET, x=X, y=Y, eps=0.1, steps=1,
    ),
    example(
        attacks.adaptive,
        {**ATTACK, "threshold": NOT_NUMBERS, "weights": [None, 0.5, "1", [], [-1.0], [NAN], ["a"], {}, torch.ones(0)],
         "score": [None, 3, "msp", lambda x: x, lambda x: x.sum(), lambda x: None, lambda x: NAN * x.sum((1, 2, 3))],
         "scale": OPTIONAL["positive"], "steps": "count", "step_size": OPTIONAL["number"], "restarts": "count",
         "random_start": "flag", "early_stop": "flag", "seed": "seed"},
        model=NET, x=X, y=Y, eps=0.1, score=SCORED.differentiable, threshold=0.0, steps=1,
    ),
    example(
        attacks.autoattack, {**ATTACK, "model": "model", "seed": "seed", "batch_size": "count"},
        model=NET, x=X[:0], y=Y[:0], eps=0.1,
    ),
    example(
        shifts.corrupt, {"x": "unit_x", "kind": "name", "severity": "severity", "seed": "seed"},
        x=X, kind="fog", severity=1,
    ),
    example(
        certify.certify,
        {"model": "odd_model", "x": "x", "sigma": "positive", "n0": "count", "n": "count", "alpha": "open_fraction",
         "batch_size": "count", "seed": "seed"},
        model=NET, x=X[:2], sigma=0.1, n0=2, n=4,
    ),
    example(
        certify.lower_bound, {"k": "natural", "n": "count", "alpha": "open_fraction"}, k=3, n=5, alpha=0.1
    ),
    example(
        certify.radius_cap, {"sigma": "positive", "n": "count", "alpha": "open_fraction"}, sigma=0.1, n=5, alpha=0.1
    ),
    example(ensembles.Ensemble, {"members": [None, 3, "ab", [], [NET, 3], [nn.Linear]]}, members=[NET, NET]),
    example(ensembles.Ensemble([NET]).disagreement, {"x": "x", "batch_size": "count"}, x=X),
    example(
        sanity.check,
        {"model": "odd_model", "samples": "train", "eps": OPTIONAL["positive"], "norm": "name", "seed": "seed",
         "transfer_from": OPTIONAL["model"]},
        model=NET, samples=TINY.take(slice(0, 6)), eps=0.1,
    ),
    example(detectors.build, {"name": "name"}, name="msp"),
    example(partial(detectors.build, "energy"), {"temperature": "positive"}, temperature=1.0),
    example(partial(detectors.build, "odin"), {"temperature": "positive", "eps": "number"}, eps=0.1),
    example(partial(detectors.build, "knn"), {"k": "count"}, k=3),
    example(partial(detectors.build, "vim"), {"dimensions": OPTIONAL["count"]}, dimensions=2),
    example(partial(detectors.build, "dice"), {"p": ["0.5", None, [], NAN, -0.1, 1.5, True]}, p=0.5),
    example(partial(detectors.build, "react"), {"percentile": ["0.5", None, [], NAN, -0.1, 1.5, True]}, percentile=0.5),
    example(
        partial(detectors.build, "ash"),
        {"variant": "name", "percentile": ["0.5", None, [], NAN, -0.1, 1.5, True]}, percentile=0.5,
    ),
    example(
        partial(detectors.build, "sensnorm"),
        {"criterion": "name", "norm": "norm", "target": "name", "aggregate": "name", "views": "count",
         "reference": [3, "nonsense", True, []], "standardise": "flag", "per_loss": "flag", "budget": "count"},
        criterion="snip",
    ),
    example(
        partial(detectors.build, "sensnorm-ayle"),
        {"budget": "count", "criterion": ["crop", None, 3], "norm": [2, None], "per_loss": [False], "views": [2]},
        budget=1000,
    ),
    example(detectors.build("msp").fit, {"model": "model"}, model=NET),
    example(detectors.build("knn", k=3).fit, {"model": "model", "train": "samples"}, model=NET, train=TINY),
    *[
        example(fitted(name).score, {"x": "x"}, x=X)
        for name in ("msp", "odin", "mahalanobis", "react", "feature_norm", "sensnorm", "sensnorm-ayle", "profile")
    ],
    *[
        example(fitted(name).differentiable, {"x": "x"}, x=X)
        for name in ("msp", "energy", "mahalanobis", "knn", "feature_norm")
    ],
    example(metrics.auroc, SCORES, id_scores=[0.1, 0.2], ood_scores=[0.3]),
    example(metrics.aupr, {**SCORES, "positive": "name"}, id_scores=[0.1, 0.2], ood_scores=[0.3]),
    example(metrics.fpr_at_95_tpr, {**SCORES, "positive": "name"}, id_scores=[0.1, 0.2], ood_scores=[0.3]),
    example(metrics.threshold, {"id_scores": "scores", "false_alarms": "fraction"}, id_scores=[0.1, 0.2]),
    example(
        metrics.right_or_rejected,
        {"scores": "scores", "right": [None, "r", 3, [], [True], [0, 1], [[True, False]], torch.ones(2)],
         "threshold": [*NOT_NUMBERS, INF]},
        scores=[0.1, 0.2], right=[True, False], threshold=0.15,
    ),
    example(
        metrics.area_under_accuracy,
        {"eps": [None, 3, "e", [], [0.0], [0.1, 0.2], [0.0, 0.0], [0.0, -0.1], [0.0, NAN]],
         "accuracy": [None, 3, "a", [], [1.0], [1.0, 1.5], [-0.1, 0.5], [1.0, NAN], [1.0, 0.5, 0.2], [90.0, 50.0]]},
        eps=[0.0, 0.1], accuracy=[1.0, 0.5],
    ),
    example(sensitivity.norms, {**SALIENCY, "norm": "norm", "aggregate": "name"}, model=NET, x=X),
    example(sensitivity.profile, {**SALIENCY, "norm": "norm", "reference": OPTIONAL["tensors"]}, model=NET, x=X),
    example(sensitivity.moments, SALIENCY, model=NET, x=X),
    example(
        training.fit,
        {**TRAIN, "model": "odd_model", "epochs": "natural", "weight_decay": "number", "noise": OPTIONAL["number"],
         "augment": [v for v in NOT_TEXT if v is not None], "precision": "name",
         "adversarial": [3, "pgd", 0.1], "after_epoch": [3, "x"], "progress": "flag"},
        model=network(), train=TINY, epochs=1, progress=False,
    ),
    example(training.logits, {"model": "odd_model", "x": "x", "batch_size": "count"}, model=NET, x=X),
    example(
        training.accuracy, {"model": "odd_model", "samples": "train", "batch_size": "count"}, model=NET, samples=TINY
    ),
    example(
        training.restate_batch_norm,
        {"model": "model", "samples": [None, "digits", 3, TINY.take(slice(0, 0)), X[:0]], "batch_size": "count"},
        model=network(), samples=TINY,
    ),
    example(
        models.build,
        {"name": "name", "in_channels": "count", "num_classes": "count", "image_size": "count", "seed": "seed",
         "width": OPTIONAL["count"], "mean": ["x", NAN, [], [0.1, 0.2], INF], "std": ["x", 0, NAN, [], -1.0, INF]},
        name="convnet", in_channels=1, num_classes=3, image_size=8, width=2, mean=0.5, std=0.5,
    ),
    example(data.load, {"name": "name", "split": "name", "limit": OPTIONAL["count"], "seed": "seed"}, name="digits"),
    example(data.balanced, {"samples": "train", "n": "count", "seed": "seed"}, samples=TINY, n=10),
    example(data.overlap, {"first": "samples", "second": "samples"}, first=TINY, second=TINY),
    example(
        data.outliers,
        {"name": "name", "like": "train", "n": OPTIONAL["natural"], "seed": "seed", "split": "name"},
        name="uniform", like=TINY, n=4,
    ),
    example(TINY.only, {"classes": "classes"}, classes=["1", "2"]),
    example(TINY.split, {"fraction": "open_fraction", "seed": "seed"}, fraction=0.5),
    example(
        data.Samples, {"x": "unit_x", "y": "needed_y", "classes": [None, 3, [], ["a", "a"]]},
        x=X, y=Y, classes=TINY.classes, name="some",
    ),
    example(checkpoints.save_model, {"model": "model", "path": "path"}, model=NET, path=Path("/nonexistent/net.st")),
    example(checkpoints.load_model, {"path": "path"}, path=Path("/nonexistent/net.st")),
]  # fmt: skip


def outcome(function: Callable, arguments: dict, argument: str) -> str | None:
    """Return what is wrong with how a function answers a call with one wrong argument; None if nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except (ValueError, TypeError) as error:
            said = str(error)
            named = argument.rstrip("s") in said or (argument == "name" and said.startswith("unknown "))
            named &= "unexpected keyword" not in said
            return None if named and len(str(error)) < 400 else f"vague: {type(error).__name__}: {str(error)[:120]}"
        except Exception as error:
            return f"foreign: {type(error).__name__}: {str(error)[:120]}"
    return "accepted"


@pytest.mark.parametrize("function, good, kinds", CALLS)
def test_wrong_arguments_are_named(function, good, kinds):
    before = {key: value.clone() for key, value in NET.state_dict().items()}
    rng = torch.get_rng_state()
    wrong = []
    for argument, kind in kinds.items():
        for value in WRONG[kind] if isinstance(kind, str) else kind:
            said = outcome(function, {**good, argument: value}, argument)
            if said:
                wrong.append(f"{argument}={str(value)[:40]!r}: {said}")
    assert not wrong, f"{len(wrong)} calls:\n" + "\n".join(wrong)
    assert all(torch.equal(value, before[key]) for key, value in NET.state_dict().items())
    assert NET.training and all(p.requires_grad for p in NET.parameters()) and torch.equal(torch.get_rng_state(), rng)
