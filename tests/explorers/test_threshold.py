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
