"""The threshold explorer, over scores whose ties tell the conventions apart."""

import re

import numpy as np
import pytest

from sparselib.detection import metrics

pytestmark = pytest.mark.browser


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


def _wrong(page):
    """Return how rare anomalies are, one in so many, and the share of alarms that are wrong, None without alarms."""
    told = page.inner_text(".told")
    one, wrong = re.search(
        r"Where 1 input in (\d+) is an anomaly, (?:([\d.]+) % of alarms are wrong|there are no)", told
    ).groups()
    return int(one), None if wrong is None else float(wrong)


def test_the_share_of_wrong_alarms_follows_bayes_by_keyboard(open_piece):
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(0, 1, 200), rng.normal(2, 1, 100)
    page = open_piece("threshold", {"detectors": {"one": {"id": inside.tolist(), "ood": outside.tolist()}}})
    threshold, rare = (page.get_by_role("slider", name=name) for name in ("Threshold", "How rare anomalies are"))
    points = np.sort(np.r_[inside, outside])

    def expected(one):
        t = points[int(threshold.input_value())]
        false, caught = (inside >= t).mean() * (1 - 1 / one), (outside >= t).mean() / one
        return 100 * false / (false + caught)

    assert rare.get_attribute("aria-valuetext") == "1 in 100"
    seen = []
    for key in ("ArrowLeft", "ArrowRight", "ArrowRight", "End", "Home"):
        rare.focus()
        page.keyboard.press(key)
        threshold.focus()
        page.keyboard.press("ArrowRight")
        one, wrong = _wrong(page)
        assert rare.get_attribute("aria-valuetext") == f"1 in {one}"
        assert wrong == pytest.approx(expected(one), abs=0.06)
        seen.append(one)
    assert seen == [50, 100, 200, 10000, 2]
    bar = page.get_by_role("img", name="Alarms, wrong and right").locator("rect").first
    assert float(bar.get_attribute("width")) / 3 == pytest.approx(_wrong(page)[1], abs=0.06)
    threshold.focus()
    page.keyboard.press("End")
    assert _wrong(page) == (2, None)  # above all scores nothing is flagged


def test_the_piece_fits_a_phone(open_piece):
    page = open_piece("threshold", {"detectors": {"a score": {"id": [0.0, 1.0, 2.0], "ood": [1.5, 3.0]}}})
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.locator("svg").evaluate_all("all => all.map((s) => 11 * s.clientWidth / s.viewBox.baseVal.width)")
    assert min(sizes) >= 11, sizes  # px of their text
