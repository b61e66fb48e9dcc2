"""The two-dimensional attack, step by step, over the walk of a linear network whose every point is known."""

import re

import pytest
import torch

from sparselib.robustness import attacks

pytestmark = pytest.mark.browser
EPS = [0.1, 0.3]


@pytest.fixture(scope="module")
def walks():
    """A point at (0.412, 0.5) of the class that lies left of 0.5, attacked in both norms."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
        net[1].bias.copy_(torch.tensor([0.0, -5.0]))
    x, y = torch.tensor([[[[0.412, 0.5]]]]), torch.tensor([0])

    def entry(at):
        z = net(at).detach()
        loss = torch.nn.functional.cross_entropy(z, y).item()
        return [*at.flatten().tolist(), loss, z.argmax(1).item()]

    def way(eps, norm, steps):
        fewer = [attacks.pgd(net, x, y, eps, norm=norm, steps=s, step_size=eps / steps, random_start=False)
                 for s in range(1, steps + 1)]  # fmt: skip
        return [entry(at) for at in (x, *fewer)]

    return {
        words: {name: [way(eps, norm, steps) for eps in EPS] for name, steps in (("FGSM", 1), ("PGD", 4))}
        for words, norm in (("L∞", "linf"), ("L2", "l2"))
    }


def test_the_walk_is_told_as_it_was_computed_by_keyboard(open_piece, walks):
    points = {"one": {"at": [0.412, 0.5], "label": 0, "walks": walks}}
    data = {"classes": ["left", "right"], "says": ["01", "01"], "points": points, "eps": EPS, "start": 1}
    page = open_piece("ball", data)
    assert page.locator("svg rect.one").count() == 2
    for norm in walks:
        page.locator("select").nth(1).select_option(norm)
        for attack in walks[norm]:
            page.locator("select").nth(2).select_option(attack)
            radius, step = (page.get_by_role("slider", name=name) for name in ("Radius ε", "Step"))
            for index, key in enumerate(("Home", "End")):
                radius.focus()
                page.keyboard.press(key)
                way = walks[norm][attack][index]
                step.focus()
                page.keyboard.press("Home")
                for at, (x, y, loss, says) in enumerate(way):
                    told = page.inner_text(".told")
                    assert f"{attack}, {norm} ε = {EPS[index]:g}, step {at} of {len(way) - 1}:" in told
                    assert f"at ({x:.2f}, {y:.2f}) the loss is {loss:.2f}" in told
                    assert f"says {data['classes'][says]}; the label is left" in told
                    worst = max(way[: at + 1], key=lambda point: point[2])
                    assert re.search(r"the point is (not broken|broken)", told)[1] == (
                        "broken" if worst[3] else "not broken"
                    )
                    assert page.locator("svg .right, svg .broken").count() == at + 1
                    page.keyboard.press("ArrowRight")
    assert "ε = 0.3" in page.inner_text(".told")  # the last one, of which the point is broken
    assert page.locator("table tr").nth(2).inner_text().split()[-1] == "yes"


def test_it_fits_a_narrow_page(open_piece, walks):
    points = {"PGD breaks it, FGSM does not": {"at": [0.412, 0.5], "label": 0, "walks": walks}}
    page = open_piece("ball", {"classes": ["around", "band"], "says": ["01", "01"], "points": points, "eps": EPS})
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
