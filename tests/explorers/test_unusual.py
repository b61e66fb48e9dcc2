"""The explorer of unusual inputs shows the answers and outcomes that it is given."""

import pytest

pytestmark = pytest.mark.browser


def _answer(first, threshold):
    score = -max(first, 1 - first)
    said = 0 if first >= 0.5 else 1
    return {
        "p": [first, 1 - first], "score": score, "said": said,
        "outcome": "rejected" if score > threshold else ("right" if said == 0 else "wrong and unnoticed"),
    }  # fmt: skip


def _network(firsts):
    return {"pixels": [[10 * i] * 4 for i in range(len(firsts))], "answers": [_answer(f, -0.75) for f in firsts]}


@pytest.fixture
def page(open_piece):
    ways = [
        {
            "name": "attack", "strength": "radius ε", "values": [0, 0.1, 0.2], "start": 2,
            "classless": [False] * 3,
            "networks": {"dense": _network([0.9, 0.6, 0.1]), "sparse": _network([0.9, 0.8, 0.5])},
        },
        {
            "name": "blend", "strength": "share", "values": [0, 1], "start": 0, "classless": [False, True],
            "networks": {"dense": _network([0.9, 0.6]), "sparse": _network([0.9, 0.6])},
        },
    ]  # fmt: skip
    data = {
        "side": 2, "classes": ["7", "1"], "label": 0, "thresholds": {"dense": -0.75, "sparse": -0.75}, "ways": ways,
    }  # fmt: skip
    page = open_piece("unusual", data)
    page.set_viewport_size({"width": 360, "height": 800})
    return page


def test_each_strength_is_told_by_keyboard(page):
    told = page.inner_text(".told")
    assert told.startswith("attack, radius ε 0.2: the dense network says 1 (90.0 %), its score −0.90 is not above")
    assert ": wrong and unnoticed; the sparse network says 7 (50.0 %), its score −0.50 is above the" in told
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "radius ε 0.1"
    told = page.inner_text(".told")
    assert "dense network says 7 (60.0 %)" in told and told.count("rejected") == 1
    page.keyboard.press("Home")
    assert page.inner_text(".told").count(": right") == 2
    page.locator("select").focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".told").startswith("blend, share 0: ")
    slider.focus()
    page.keyboard.press("End")
    assert page.inner_text(".told").endswith("Here, no class is right.")


def test_the_strip_shows_all_outcomes_and_nothing_runs_over(page):
    kinds = page.eval_on_selector_all(".sign", "all => all.map(s => s.getAttribute('class').split(' ')[1])")
    assert kinds == ["id", "refused", "missed", "id", "id", "refused"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = "all => Math.min(...all.map(t => parseFloat(getComputedStyle(t).fontSize) * t.getCTM().a))"
    assert page.eval_on_selector_all("svg text", small) >= 9
