"""The sparsity explorer shows the masks, accuracies and bytes that it is given, by keyboard."""

import numpy as np
import pytest

from sparselib import models, pruning
from sparselib.pruning import masks

pytestmark = pytest.mark.browser

SPARSITIES = [0.0, 0.5, 0.8]
DRAWN = """
all => all.map(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])
    .map(pixels => pixels.filter((v, i) => i % 4 == 3 && v).length)
"""


@pytest.fixture
def shown():
    """Return the data of a small network, and how many weights of each layer stay at each sparsity."""
    net = models.build("lenet5", in_channels=1, num_classes=3, image_size=8, width=6)
    nets = [pruning.prune(net, "magnitude", s) for s in SPARSITIES]
    kept = [[masks.mask_of(layer) for layer in masks.prunable(n).values()] for n in nets]
    last = [sum(m.int() for m in own).flatten(1) for own in zip(*kept, strict=True)]
    layers = [
        {"name": f"layer {i}", "rows": len(n), "columns": n.shape[1], "all": list(n.shape),
         "last": "".join(map(str, n.flatten().tolist()))}
        for i, n in enumerate(last, 1)
    ]  # fmt: skip
    counts = [[int(m.sum()) for m in own] for own in kept]
    data = {
        "sparsities": SPARSITIES, "start": 1, "dense": 0.95, "cut": [0.95, 0.5, 0.25], "trained": [0.95, 0.9, 0.75],
        "chance": 0.33, "layers": layers, "kept": counts, "size": [n.numel() for n in last],
        "bytes": {"dense": [4000] * 3, "bitmap": [4125, 2125, 525]},
        "image": {"side": 2, "channels": 1, "pixels": [0, 100, 200, 255], "name": "Our seven",
                  "cut": [["7", 0.9], ["1", 0.5], ["1", 0.4]], "trained": [["7", 0.9], ["7", 0.8], ["7", 0.7]]},
    }  # fmt: skip
    return data, counts


def test_sparsity_draws_the_masks_of_the_library_by_keyboard(open_piece, shown):
    data, counts = shown
    page = open_piece("sparsity", data)
    slider = page.get_by_role("slider", name="Sparsity")
    assert slider.get_attribute("aria-valuetext") == "0.5"
    total = int(np.sum(data["size"]))
    for key, at in (("Home", 0), ("ArrowRight", 1), ("End", 2)):
        slider.focus()
        page.keyboard.press(key)
        told = page.inner_text(".told")
        assert f"Sparsity {SPARSITIES[at]:g}: {sum(counts[at]):,} of {total:,} weights stay" in told
        cut, trained = data["cut"][at], data["trained"][at]
        assert f"right after the cut {100 * cut:.1f} %, trained on {100 * trained:.1f} %" in told
        assert f"Bytes of the weights: dense 4,000, bitmap {data['bytes']['bitmap'][at]:,}." in told
        name, p = data["image"]["cut"][at]
        assert f"Our seven is read as {name} ({100 * p:.1f} %) after the cut, as 7" in told
        drawn = page.eval_on_selector_all(".masks canvas", DRAWN)
        assert drawn == counts[at]
    page.locator("select").select_option("layer 2")
    assert page.locator(".masks canvas").count() == 1
    assert page.inner_text(".masks figcaption").startswith(f"layer 2: {counts[2][1]}")


def test_sparsity_fits_a_phone(open_piece, shown):
    page = open_piece("sparsity", shown[0])
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    tall = page.eval_on_selector_all("svg text", "all => all.map(t => t.getBoundingClientRect().height)")
    assert min(tall) >= 11
