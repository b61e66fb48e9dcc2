"""The piece of two layers keeps the weights that the library keeps, by keyboard, and says when a layer is empty."""

import pytest
import torch

from sparselib.pruning import masks

pytestmark = pytest.mark.browser


@pytest.fixture
def scores():
    """Return scores of two layers of 4×4 by criterion: of unlike scales, and of like ones with ties."""
    rng = torch.Generator().manual_seed(0)
    plain = torch.rand(2, 4, 4, generator=rng)
    return {"magnitude": plain * torch.tensor([10.0, 0.1])[:, None, None], "SNIP": plain.mul(4).round()}


def test_layer_keeps_what_the_library_keeps_by_keyboard(open_piece, scores):
    kept = {name: [masks.keep_highest(s.flatten(), n) for n in range(33)] for name, s in scores.items()}
    of = {
        name: {"stays": sum(m.int() for m in many).tolist(), "accuracy": [round(n / 32, 4) for n in range(33)]}
        for name, many in kept.items()
    }
    values = scores["magnitude"].view(2, 16).tolist()
    view = {"weights": values, "gradients": values, "of": of}
    page = open_piece("layer", {"views": {"large": view, "plain": view}, "start": 16, "chance": 0.25})
    told = page.inner_text(".told")
    assert told.startswith("magnitude, large: 16 of 32 weights stay, 16 in layer 1 and 0 in layer 2.")
    assert "Collapse: layer 2 is empty" in told and "Accuracy 50.0 %" in told and "chance: 25.0 %" in told
    slider = page.get_by_role("slider", name="Weights that stay")
    for name, many in kept.items():
        page.locator("select").first.select_option(name)
        slider.focus()
        page.keyboard.press("Home")
        for count in range(33):
            left = [int(part.sum()) for part in many[count].split(16)]
            told = page.inner_text(".told")
            assert f"{count} of 32 weights stay, {left[0]} in layer 1 and {left[1]} in layer 2." in told
            assert ("Collapse" in told) == (count > 0 and 0 in left)
            classes = page.eval_on_selector_all(".grids rect", "all => all.map(r => r.classList.contains('stays'))")
            first, _, second, _ = torch.tensor(classes).split(16)
            assert torch.equal(torch.cat([first, second]), many[count])
            page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "32 of 32"


def test_layer_fits_a_phone(open_piece, scores):
    of = {"magnitude": {"stays": list(range(32)), "accuracy": [0.5] * 33}}
    values = [[-0.0123, 123.4, -1.25, 0.5] * 4] * 2
    view = {"weights": values, "gradients": values, "of": of}
    page = open_piece("layer", {"views": {"layer 1 × 100, layer 2 ÷ 100": view}, "start": 16, "chance": 0.25})
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    tall = page.eval_on_selector_all("svg text", "all => all.map(t => t.getBoundingClientRect().height)")
    assert min(tall) >= 11
    wide = page.eval_on_selector_all(".grids text.kept, .grids text.lost", "all => all.map(t => t.getBBox().width)")
    assert max(wide) <= 36
