"""The book on a phone, light and dark."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
LEAST = 9  # pixels
IMAGES = "all => all.filter(i => i.offsetParent).map(i => [i.src, i.getBoundingClientRect().width])"
LOADED = """() => Promise.all([...document.querySelectorAll('main img')].filter(i => i.offsetParent).map(i => {
  i.loading = 'eager';
  return i.decode();
}))"""
DRAWN = """all => all.filter(t => t.textContent.trim() && t.getBoundingClientRect().height).map(t => {
  const drawn = t.getScreenCTM();  // turned labels have a size, too
  return [t.textContent, parseFloat(getComputedStyle(t).fontSize) * Math.hypot(drawn.a, drawn.b)];
})"""


def _look(page):
    """Return the height of the smallest text of each figure, the smallest of inline drawings, and how far pages go."""
    page.evaluate(LOADED)
    images = page.eval_on_selector_all("main img", IMAGES)
    drawn = page.eval_on_selector_all("main svg:not(mjx-container svg) text", DRAWN)
    far = page.evaluate("document.documentElement.scrollWidth") - 390
    page.set_viewport_size({"width": 360, "height": 800})
    far = max(far, page.evaluate("document.documentElement.scrollWidth") - 360)
    page.set_viewport_size({"width": 390, "height": 900})
    text = {Path(source).name: _text(source, width) for source, width in images if source.endswith(".svg")}
    return {"figures": text, "drawn": min(drawn, key=lambda pair: pair[1], default=("", LEAST)), "far": far}


def _text(source, width):
    """Return how many pixels high the smallest text of an SVG of matplotlib's is, shown at this width."""
    svg = Path(source.removeprefix("file://")).read_text(encoding="utf-8")
    whole = float(re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', svg)[1])
    points = [100 * float(size) for size in re.findall(r"\) scale\((0?\.\d+) -", svg)]
    points += [float(size) for size in re.findall(r"font(?:-size)?: *(?:\w+ )*([\d.]+)px", svg)]
    return min(points, default=LEAST * whole / width) * width / whole


@pytest.fixture(scope="module")
def both(visit):
    return visit(390, _look, colours=False)


def test_text_in_figures_can_be_read(light, told):
    def small(one):
        return {name: round(size, 1) for name, size in one.facts["figures"].items() if size < LEAST - 0.05}

    assert any(one.facts["figures"] for one in light)
    assert not told(light, small)
    assert not told(light, lambda one: one.facts["drawn"][1] < LEAST and one.facts["drawn"])


def test_no_page_scrolls_sideways(light, dark, told):
    assert not told([*light, *dark], lambda one: one.facts["far"] > 0 and one.facts["far"])


def test_each_theme_shows_its_own_drawing_of_each_figure(light, dark):
    for one, other in zip(light, dark, strict=True):
        names, pairs = (sorted(seen.facts["figures"]) for seen in (one, other))
        assert [name.replace(".dark.", ".") for name in pairs] == names, one.path
        drawn = [name for name in names if f"{name[:-4]}.dark.svg" in one.path.read_text(encoding="utf-8")]
        assert all(f"{name[:-4]}.dark.svg" in pairs for name in drawn)


def test_axe_finds_nothing_to_complain_of(light, told):
    assert not told(light, lambda one: one.violations)


def test_nothing_goes_wrong_on_any_page(light, dark, told):
    assert not told([*light, *dark], lambda one: one.errors)
