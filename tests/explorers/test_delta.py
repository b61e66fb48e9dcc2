"""The explorer of the endpoints says what the rule says."""

import numpy as np
import pytest

from sparselib.experiments import statistics

pytestmark = pytest.mark.browser


def test_delta_says_what_the_rule_says_by_keyboard(open_piece):
    """Every outcome at every δ is that of `statistics.contrast`, but for those that no δ changes."""
    rng = np.random.default_rng(1)
    found = [statistics.contrast(rng.normal(m, s, 5), 2.0) for m in (-4, -1, 0, 0.5, 4) for s in (0.1, 1, 4)]
    ends = [
        {"name": str(i), "scale": "digits", "mean": c.mean, "low": c.low, "high": c.high, "fixed": None}
        for i, c in enumerate(found)
    ]
    ends.append({**ends[0], "scale": "mnist", "fixed": "not comparable"})  # stands with the first
    page = open_piece("delta", {"delta": 2.0, "most": 10, "ends": ends})
    slider = page.get_by_role("slider", name="δ, in points")
    slider.focus()

    def shown():
        return page.locator("tbody td:last-child").all_inner_texts()

    for key, delta in (("", 2.0), ("ArrowRight", 2.1), ("Home", 0.0), ("End", 10.0)):
        if key:
            page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == f"{delta:.1f} points"
        expected = [statistics.contrast(c.differences, delta).told.replace(f"{delta:.2g}", "δ") for c in found]
        assert shown() == [expected[0], "not comparable", *expected[1:]]
        assert page.locator("th[scope=rowgroup]").all_inner_texts() == [end["name"] for end in ends[:-1]]
