"""The attack explorer shows what it is given."""

import pytest

pytestmark = pytest.mark.browser


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
