"""The cifar10 profile, which needs data and a GPU to be run in earnest: its steps on a few colour images."""

import numpy as np
import pytest
from PIL import Image

from sparselib import experiments
from sparselib.repro import parameters as typed
from sparselib.repro import runner
from sparselib.repro.store import Store

TINY = {
    "width": 2,
    "epochs": 1,
    "batch_size": 8,
    "seeds": 1,
    "anomalies": ["pgd:0.01", "fog:1", "textures"],
    "recipes": ["magnitude after", "snip before units"],
    "sparsities": [0.5],
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
    "attack_samples": 4,
    "autoattack_samples": 0,
    "shifts": ["fog"],
    "mask_epochs": 1,
    "objectives": ["adversarial", "outlier"],
    "mask_sparsities": [0.5],
    "members": 2,
    "unit_sparsities": [0.5],
    "scratch_sparsities": [0.5],
    "certify_n": 10,
    "certify_samples": 2,
    "detectors": ["msp", "sensnorm"],
    "ablation": ["sensnorm layers:all"],
    "fresh_seeds": 0,
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


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_figure_of_cifar10_computes_on_colour_images(number, images, store):
    model = typed.find(experiments.PAGES, number)
    given = {name: value for name, value in TINY.items() if name in model.model_fields}
    p = typed.resolve(model, {"profile": "cifar10", "dataset": f"folder:{images}", **given})
    assert p.network == "resnet18" and p.profile == "cifar10"
    runner.compute(p.steps(), store, progress=False)
    rows = runner.rows(p.roles(), store)
    assert np.isfinite(rows["value"]).all() and set(rows["network"]) == {"resnet18"}
    shares = rows[rows["metric"].isin(["accuracy", "auroc", "certified", "fpr95_ood"])]
    assert shares["value"].between(0, 1).all() and len(shares)
