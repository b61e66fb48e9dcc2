"""The cifar10 profile, which needs its data and hours to be run in earnest: its steps on a few colour images."""

import numpy as np
import pytest
from PIL import Image

from sparselib import experiments
from sparselib.experiments import findings, measurements, statistics
from sparselib.repro import parameters as typed
from sparselib.repro import runner
from sparselib.repro.store import Store

TINY = {
    "width": 2,
    "epochs": 1,
    "batch_size": 8,
    "precision": "float32",
    "augment": "crop+flip",
    "held_out": [],
    "train_limit": 0,
    "test_limit": 0,
    "seeds": 1,
    "anomalies": ["pgd:0.01", "fog:1", "mixed", "textures"],
    "recipes": ["magnitude after", "snip before units"],
    "sparsities": [0.5],
    "headline_sparsity": 0.5,
    "rounds": 1,
    "finetune_epochs": 1,
    "wide_width": 2,
    "narrow_widths": [1],
    "noisy_width": 2,
    "noisy_epochs": 2,
    "noisy_recipes": ["random before"],
    "noisy_sparsities": [0.5],
    "eps_linf": [0.01],
    "eps_l2": [0.1],
    "curve_linf": [0.01],
    "curve_l2": [0.1],
    "attack_steps": 1,
    "attack_restarts": 1,
    "attack_samples": 4,
    "autoattack_samples": 0,
    "shifts": ["fog:3"],
    "mask_epochs": 1,
    "objectives": ["adversarial", "outlier"],
    "controls": ["magnitude"],
    "evaded": ["msp"],
    "mask_sparsities": [0.5],
    "members": 2,
    "unit_sparsities": [0.5],
    "scratch_sparsities": [0.5],
    "certify_n": 10,
    "certify_samples": 2,
    "detectors": ["msp", "sensnorm", "sensnorm-ayle"],
    "ablation": ["sensnorm layers:all"],
    "gradient_detectors": ["msp", "sensnorm"],
}

FEWER = {  # where there are many networks
    2: {"detectors": ["msp"], "anomalies": ["pgd:0.01", "mixed", "textures"]},
    3: {"detectors": ["msp"], "anomalies": ["mixed"]},
    7: {"detectors": ["msp"], "anomalies": ["mixed"]},
    4: {"anomalies": ["mixed"]},
}
NOT_THERE = {  # of the comparisons that figures 3 and 7 share
    3: {"masks that are not learnt"},
    7: {"learnt masks, statistics restated", "trained against untrained weights"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 32×32 colour images of two classes."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, base in (("dark", 40), ("light", 200)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(base, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def _tiny(number, images, **changed):
    model = typed.find(experiments.PAGES, number)
    given = {name: value for name, value in (TINY | changed).items() if name in model.model_fields}
    return typed.resolve(model, {"profile": "cifar10", "dataset": f"folder:{images}", **given})


@pytest.mark.parametrize("number, claims", [
    (1, ["C1a", "C1b"]), (2, ["C1c", "C1c"]), (3, ["C2"]), (4, ["C3"]), (5, ["C4", "C4"]), (7, ["C2"]),
])  # fmt: skip
def test_every_figure_of_cifar10_computes_on_colour_images(number, claims, images, store, monkeypatch):
    monkeypatch.setattr(measurements, "BATCH", 8)  # what is timed
    p = _tiny(number, images, **FEWER.get(number, {}))
    assert p.network == "resnet18" and p.profile == "cifar10"
    runner.compute(p.steps(), store, progress=False)
    rows = runner.rows(p.roles(), store)
    assert np.isfinite(rows["value"]).all() and set(rows["network"]) == {"resnet18"}
    shares = rows[rows["metric"].isin(["accuracy", "auroc", "certified", "fpr95_ood", "ror"])]
    assert shares["value"].between(0, 1).all() and len(shares)
    found = findings.endpoints(p, rows)
    assert [e.claim for e in found] == claims
    assert {e.outcome for e in found} <= {statistics.OPEN, statistics.FLOOR, statistics.NOT_COMPARABLE}, "of one seed"
    compared = {f.comparison.question for f in findings.compare(p.comparisons(), rows)}
    assert {c.question for c in p.comparisons()} - compared == NOT_THERE.get(number, set()), "the others find rows"


def _trainings(step):
    """The epochs of each phase of training that a network step comes from."""
    if hasattr(step, "shrunk") or hasattr(step, "pruned"):
        return _trainings(step.pruned if hasattr(step, "pruned") else step.shrunk)
    return [*_trainings(step.dense), step.epochs] if hasattr(step, "dense") else [step.epochs]


def test_partners_train_as_long_and_in_the_same_phases_on_the_same_images(images):
    p = _tiny(1, images, epochs=3, finetune_epochs=2, noisy_epochs=6)
    nets = [(role, net) for role, net in p.networks(4)]
    assert {net.origin.data for _, net in nets} == {p.data(4)} and p.data(4) != p.data(3)
    for question, total in (("width", 5), ("size", 5), ("noise", 6)):
        own = {role["arm"]: net for role, net in nets if role["question"] == question}
        told = {arm: _trainings(net) for arm, net in own.items() if arm != "fewer epochs"}
        assert {sum(phases) for phases in told.values()} == {total}
        assert len(told["dense"]) == 1 and len(told["unpruned"]) == 2
        if "magnitude after" in told:
            assert told["magnitude after"] == told["unpruned"]
    sizes = {role["size"] for role, _ in nets if role["arm"] == "magnitude after" and "size" in role}
    weights = {role["size"] for role, _ in nets if role["arm"] == "unpruned" and "size" in role}
    assert sizes and sizes < weights, "every pruned size has its narrow partner"


def test_members_of_an_ensemble_differ_in_weights_and_share_the_images_of_the_seed(images):
    p = _tiny(4, images, members=3)
    nets = [net for seed in (0, 1) for i in range(3) for _, net in p.family(seed, member=i)]
    found = {(net.data.seed, net.seed) for net in nets}
    assert found == {(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)}
    dense, shrunk = (dict(p.family(0))[arm] for arm in ("dense", "shrunk"))
    assert _trainings(dense) == _trainings(shrunk) and dense.lr == shrunk.pruned.lr
