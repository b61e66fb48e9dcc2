"""The plane of a ReLU network, over values that the library has computed."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from sparselib import data, training
from sparselib.detection import detectors

pytestmark = pytest.mark.browser

SCORES = {"MSP": "msp", "energy": "energy", "SensNorm": "sensnorm"}


@pytest.fixture(scope="module")
def plane():
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.rand(40, 2, 1, 1, generator=rng)
    train = data.Samples(x, (x[:, 0, 0, 0] > 0.5).long(), ("left", "right"), "plane")
    training.fit(net, train, epochs=5, progress=False)
    axis = torch.linspace(-1, 2, 7)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2, 1, 1)
    scores = {}
    for shown, name in SCORES.items():
        detector = detectors.build(name).fit(net, train)
        values, own = detector.score(grid), detector.score(train.x)
        scores[shown] = {"value": values.tolist(), "share": (own < values[:, None]).float().mean(1).tolist()}
    p = training.logits(net, grid).softmax(1)
    label = [train.classes[k] for k in p.argmax(1).tolist()]
    return {
        "axis": axis.tolist(), "points": x.flatten(1).tolist(), "confidence": p.amax(1).tolist(), "label": label,
        "scores": scores, "start": [6, 3],
    }  # fmt: skip


def _told(page):
    """Return x₁, x₂, the confidence, the score and the share of ordinary inputs below it, and the class."""
    told = page.inner_text(".told")
    found = re.fullmatch(
        r"At \((\S+), (\S+)\) the network says (\w+) with a confidence of (\S+) %\. .* scores (\S+): "
        r"(\S+) % of the ordinary inputs score lower\.",
        told,
    )
    assert found, told
    x1, x2, label, *numbers = found.groups()
    return label, *(float(number.replace("−", "-")) for number in (x1, x2, *numbers))


def test_the_point_moves_by_keyboard_and_reads_what_the_library_says(open_piece, plane):
    page = open_piece("relu", plane)
    steps = len(plane["axis"])

    def expected(i, j, name):
        n = j * steps + i
        score = plane["scores"][name]
        numbers = plane["axis"][i], plane["axis"][j], 100 * plane["confidence"][n], score["value"][n]
        return plane["label"][n], *numbers, 100 * score["share"][n]

    def close(i, j, name):
        label, *numbers = _told(page)
        wanted, *values = expected(i, j, name)
        assert label == wanted and numbers == pytest.approx(values, rel=6e-3, abs=0.06)

    close(6, 3, "MSP")
    first = page.get_by_role("slider", name="x₁")
    first.focus()
    page.keyboard.press("ArrowLeft")
    close(5, 3, "MSP")
    page.keyboard.press("Home")
    second = page.get_by_role("slider", name="x₂")
    second.focus()
    page.keyboard.press("ArrowUp")
    close(0, 4, "MSP")
    assert second.get_attribute("aria-valuetext") == "1.00"
    for name in SCORES:
        page.locator("select").select_option(name)
        close(0, 4, name)
        opacity = page.locator(".heat").evaluate_all("cells => cells.map((c) => +c.getAttribute('fill-opacity'))")
        assert opacity == pytest.approx(plane["scores"][name]["share"])


def test_all_scores_are_read_beside_the_plane_and_the_ring_stands_where_the_point_is(open_piece, plane):
    page = open_piece("relu", plane)
    rows = [row.split("\t") for row in page.inner_text(".explorer table").splitlines() if row.strip()]
    n = 3 * len(plane["axis"]) + 6
    for (name, value, share), (shown, score) in zip(rows[1:], plane["scores"].items(), strict=True):
        assert name == shown and float(value.replace("−", "-")) == pytest.approx(score["value"][n], rel=6e-3)
        assert float(share.removesuffix(" %")) == pytest.approx(100 * score["share"][n], abs=0.06)
    ring, cells = page.locator(".ring"), page.locator(".heat")
    box, square = ring.bounding_box(), cells.nth(n).bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    assert middle == pytest.approx(
        [square["x"] + square["width"] / 2, square["y"] + square["height"] / 2], abs=square["width"] / 4
    )


def test_the_piece_fits_a_phone(open_piece, plane):
    page = open_piece("relu", plane)
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
