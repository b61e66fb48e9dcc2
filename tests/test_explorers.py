"""The interactive pieces of the book, in a browser, over scores whose ties tell the conventions apart."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparselib.detection import metrics
from sparselib.experiments import statistics

STATIC = Path(__file__).parents[1] / "book" / "_static"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def open_piece():
    """Return a function that opens one piece over the given data, on an otherwise empty page."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium on the PATH")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])

        def opened(kind, data):
            page = chromium.new_context(offline=True).new_page()
            content = f'<script type="application/json">{json.dumps(data)}</script>'
            page.set_content(f'<div class="explorer" data-explorer="{kind}">{content}</div>')
            page.add_style_tag(content=(STATIC / "book.css").read_text(encoding="utf-8"))
            page.add_script_tag(content=(STATIC / "explorers.js").read_text(encoding="utf-8"))
            assert page.locator("[data-explorer]").get_attribute("data-ready") == "yes"
            return page

        yield opened
        chromium.close()


def _fprs(page):
    """Return what is told in percent: caught, flagged, FPR95 with anomalies positive, with ordinary inputs positive."""
    told = page.inner_text(".told")
    numbers = [float(v) for v in re.findall(r"([\d.]+) % of the", told)]
    assert len(numbers) == 6, told  # caught, flagged, FPR95, "95 % of the anomalies", FPR95, "95 % of the ordinary"
    return [numbers[0], numbers[1], numbers[2], numbers[4]]


def test_threshold_says_what_the_metrics_say_by_keyboard(open_piece):
    rng = np.random.default_rng(0)
    scores = {
        "smooth": {"id": rng.normal(0, 1, 123), "ood": rng.normal(1.5, 2, 77)},
        "tied": {
            "id": np.r_[np.full(97, -1.0), [-0.5, -0.4, -0.3]],
            "ood": np.r_[np.full(12, -1.0), np.full(28, -0.2)],
        },
        "heavy": {"id": rng.random(60), "ood": 0.5 + rng.random(40) * np.r_[np.ones(30), np.full(10, 1e6)]},
    }
    plain = {name: {side: np.asarray(v).tolist() for side, v in s.items()} for name, s in scores.items()}
    page = open_piece("threshold", {"detectors": plain})
    for name, s in scores.items():
        page.locator("select").select_option(name)
        _, _, by_ood, by_id = _fprs(page)
        assert by_ood == pytest.approx(100 * metrics.fpr_at_95_tpr(s["id"], s["ood"]), abs=0.06), name
        assert by_id == pytest.approx(100 * metrics.fpr_at_95_tpr(s["id"], s["ood"], positive="id"), abs=0.06), name
        # Each button puts the threshold where its convention has it.
        page.get_by_role("button", name="95 % of anomalies caught").focus()
        page.keyboard.press("Enter")
        caught, flagged, *_ = _fprs(page)
        assert caught >= 95 and flagged == by_ood
        page.get_by_role("button", name="95 % of ordinary inputs pass").focus()
        page.keyboard.press("Space")
        caught, flagged, *_ = _fprs(page)
        assert 100 - flagged >= 95 and 100 - caught == pytest.approx(by_id, abs=0.06)
        slider = page.get_by_role("slider", name="Threshold")
        slider.focus()
        seen = set()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
            seen.add((slider.get_attribute("aria-valuetext"), *_fprs(page)[:2]))
        assert len(seen) == (1 if name == "tied" else 4)  # each step tells, until the lowest score
        page.keyboard.press("End")
        assert _fprs(page)[:2] == [0, 0] and slider.get_attribute("aria-valuetext") == "above all scores"
        page.keyboard.press("Home")
        assert _fprs(page)[:2] == [100, 100]


def test_delta_says_what_the_rule_says_by_keyboard(open_piece):
    """Every outcome at every δ is that of `statistics.contrast`, but for those that no δ changes."""
    rng = np.random.default_rng(1)
    found = [statistics.contrast(rng.normal(m, s, 5), 2.0) for m in (-4, -1, 0, 0.5, 4) for s in (0.1, 1, 4)]
    ends = [
        {"name": str(i), "scale": "digits", "mean": c.mean, "low": c.low, "high": c.high, "fixed": None}
        for i, c in enumerate(found)
    ]
    ends.append({**ends[0], "fixed": "not comparable"})
    page = open_piece("delta", {"delta": 2.0, "most": 10, "ends": ends})
    slider = page.get_by_role("slider", name="δ, in points")
    slider.focus()

    def shown():
        return [line.split("\t")[-1].strip() for line in page.locator("tbody").inner_text().splitlines()]

    for key, delta in (("", 2.0), ("ArrowRight", 2.1), ("Home", 0.0), ("End", 10.0)):
        if key:
            page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == f"{delta:.1f} points"
        expected = [statistics.contrast(c.differences, delta).told.replace(f"{delta:.2g}", "δ") for c in found]
        assert shown() == [*expected, "not comparable"]


def test_attack_shows_each_network_at_each_radius_by_keyboard(open_piece):
    def network(shift):
        return {
            "pixels": [[0, 50, 100, 200 + shift]] * 3,
            "probabilities": [[0.9, 0.1], [0.5 - shift / 10, 0.5], [0, 1]],
        }

    images = [{"label": label, "networks": {"dense": network(0), "sparse": network(1)}} for label in (0, 1)]
    data = {"side": 2, "eps": [0, 0.1, 0.2], "classes": ["airplane", "automobile"], "images": images}
    page = open_piece("attack", data)
    told = [page.inner_text(".told")]
    page.get_by_role("slider", name="ε").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        told.append(page.inner_text(".told"))
    assert told[0] == (
        "ε = 0: the dense network says airplane (90.0 %), the sparse network says airplane (90.0 %); "
        "the label is airplane."
    )
    assert "ε = 0.1: the dense network says airplane (50.0 %), the sparse network says automobile" in told[1]
    assert told[2].startswith("ε = 0.2: the dense network says automobile (100.0 %)")
    page.locator("select").select_option(index=1)
    assert page.inner_text(".told").endswith("the label is automobile.")
    assert page.locator("canvas").count() == 2
    # Names of classes end before the bars begin.
    ends = page.eval_on_selector_all("figure text", "all => all.map(t => t.getBBox().x + t.getBBox().width)")
    starts = page.eval_on_selector_all("figure rect", "all => all.map(r => r.getBBox().x)")
    assert max(ends) <= min(starts)
