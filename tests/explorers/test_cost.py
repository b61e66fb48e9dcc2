"""The explorer of what zeros cost: it says which of the three measures fell, from counts of the library."""

import re

import pytest
import torch

from sparselib import models, pruning
from sparselib.pruning import costs

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore:pruning would empty")]
KINDS = ("single weights", "whole units", "two of four")


@pytest.fixture(scope="module")
def shares():
    """Return {kind: {sparsity: shares of multiplications and numbers stored}} of a small network."""
    dense, x = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=16), torch.zeros(2, 1, 8, 8)
    base, found = costs.cost(dense, x), {kind: {} for kind in KINDS[:2]}
    for sparsity in (0.5, 0.9):
        for kind in found:
            net = pruning.prune(dense, "magnitude", sparsity, structured=kind == KINDS[1])
            cost = costs.cost(pruning.shrink(net) if kind == KINDS[1] else net, x)
            found[kind][sparsity] = {"multiplications": cost.macs / base.macs, "bytes": cost.nonzero / base.nonzero}
    return found


def _opened(open_piece, shares):
    kinds = {
        kind: [
            {"sparsity": s, "accuracy": 0.9, "shares": {**own, "time": 1.02 if kind == KINDS[0] else 0.3}}
            for s, own in rows.items()
        ]
        for kind, rows in shares.items()
    }
    kinds[KINDS[2]] = [{"sparsity": 0.5, "accuracy": 0.9, "shares": {"multiplications": 1, "bytes": 0.53, "time": 1}}]
    dense = {"multiplications": "7 an image", "bytes": "8", "time": "9 ms", "accuracy": 0.95}
    return open_piece("cost", {"dense": dense, "kinds": kinds, "start": [KINDS[0], 0.9], "fell": 0.8})


def _told(page):
    """Return the measures that are said to have fallen, those that have not, and all their shares in percent."""
    told = page.inner_text(".told")
    fell, stayed = (re.findall(r"(multiplications|bytes|time) \(", part) for part in told.split("Did not fall"))
    values = re.findall(r"(multiplications|bytes|time) \((?:to )?([\d.]+) %", told)
    return fell, stayed, {name: float(value) for name, value in values}


def test_cost_says_what_fell_by_keyboard(open_piece, shares):
    page = _opened(open_piece, shares)
    fell, stayed, values = _told(page)  # at first: the message of the page
    assert page.inner_text(".told").startswith("Single weights, sparsity 0.9.")
    assert fell == ["bytes"] and stayed == ["multiplications", "time"]
    assert values["multiplications"] == 100
    assert values["bytes"] == pytest.approx(100 * shares[KINDS[0]][0.9]["bytes"], abs=0.06)
    select, slider = page.get_by_label("What goes"), page.get_by_role("slider", name="Sparsity")
    select.focus()
    page.keyboard.press("ArrowDown")
    fell, stayed, values = _told(page)
    assert fell == ["multiplications", "bytes", "time"] and not stayed
    assert values["multiplications"] == pytest.approx(100 * shares[KINDS[1]][0.9]["multiplications"], abs=0.06)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "0.5"
    assert _told(page)[2]["bytes"] == pytest.approx(100 * shares[KINDS[1]][0.5]["bytes"], abs=0.06)


def test_a_pattern_with_one_sparsity_leaves_the_wanted_one_alone(open_piece, shares):
    page = _opened(open_piece, shares)
    select, slider = page.get_by_label("What goes"), page.get_by_role("slider", name="Sparsity")
    select.select_option(KINDS[2])
    assert slider.is_disabled() and "one sparsity" in page.inner_text(".told")
    assert _told(page)[:2] == (["bytes"], ["multiplications", "time"])
    select.select_option(KINDS[1])
    assert slider.is_enabled() and slider.get_attribute("aria-valuetext") == "0.9"


def test_cost_fits_a_phone(open_piece, shares):
    page = _opened(open_piece, shares)
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
