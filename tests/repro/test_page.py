"""How pages set what they say, and what figures say of their origin."""

import matplotlib.pyplot as plt
import pytest

from sparselib import experiments
from sparselib.experiments.plots import Drawing
from sparselib.repro import page
from sparselib.repro import parameters as typed


@pytest.mark.parametrize(
    "plain, printed",
    [
        ("-6.5 [-7, 1], from -.5", "−6.5 [−7, 1], from −.5"),
        ("| a | -3 |\n| --- | --- |", "| a | −3 |\n| --- | --- |"),
        ("97% and 5 %", "97\N{NO-BREAK SPACE}% and 5\N{NO-BREAK SPACE}%"),
        ("````{admonition} A\n-3\n````", "````{admonition} A\n−3\n````"),
    ],
)
def test_numbers_are_set_with_the_signs_that_print_has(plain, printed):
    assert page.typeset(plain) == printed and page.typeset(printed) == printed


@pytest.mark.parametrize(
    "kept", ["`--set x=-1`", "1-5 and 2022-03", "a $-1$ b", "```python\nx = -1\n```", '<i style="w:5%">', "1e-05"]
)
def test_code_formulas_and_tags_stay_as_they_are(kept):
    assert page.typeset(kept) == kept


def _caption(monkeypatch, of):
    shown = []
    monkeypatch.setattr(page, "display", lambda *what, **more: shown.append((what, more)))
    run = page.Run(typed.resolve(experiments.PAGES["attacks"], {}))
    fig, axis = plt.subplots(figsize=(3, 2))
    axis.text(0.5, 0.5, "-3 points")
    run.show(Drawing(fig, "from -3 to 2"), name="fig-x", caption="It falls by -3.", of=of)
    about = shown[0][1]["metadata"]["sparselib"]
    assert about["alt"] == "from −3 to 2" and axis.texts[0].get_text() == "−3 points"
    return about["caption"], len(shown) - 1


def test_tables_have_captions_above_them_whatever_these_hold(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda what, **more: shown.append((what, more)))
    run = page.Run(typed.resolve(experiments.PAGES["attacks"], {}))
    run.table([["a", -1]], ["b", "c"], caption="By *stars* -2")
    run.grouped({"A": [["x"]]}, ["d"], caption="Of <three>")
    run.fold("more", [["y"]], ["e"], caption="Of -4")
    run.fold("more", [["y"]], ["e"])
    about = shown[0][1]["metadata"]["sparselib-table"]
    assert about == {"caption": "By &#42;stars&#42; −2", "table": "| b | c |\n| --- | --- |\n| a | −1 |"}
    assert shown[0][0].data == f"*{about['caption']}*\n\n{about['table']}"
    assert '<table class="grouped"><caption>Of &lt;three&gt;</caption><thead>' in shown[1][0].data
    assert "<table><caption>Of −4</caption><tr>" in shown[2][0].data and "<caption>" not in shown[3][0].data


def test_a_figure_says_what_it_is_of_and_a_diagram_says_nothing(monkeypatch):
    assert _caption(monkeypatch, None) == ("It falls by −3. *digits, small CNN, seed 0.*", 1)
    assert _caption(monkeypatch, "digits, seeds 0–2") == ("It falls by −3. *digits, seeds 0–2.*", 1)
    assert _caption(monkeypatch, "") == ("It falls by −3.", 0), "and has no stamp"
