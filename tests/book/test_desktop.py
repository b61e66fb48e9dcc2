"""The book in a wide window, light and dark."""

import pytest

pytestmark = pytest.mark.browser


def _look(page):
    """Return how many search results there are, where it is searched."""
    if page.locator("#search-results").count() and page.url.split("?")[0].endswith("search.html"):
        page.wait_for_selector("#search-results li")
        return {"results": page.locator("#search-results li").count()}
    return {}


@pytest.fixture(scope="module")
def both(visit):
    return visit(1300, _look)


def test_no_request_leaves_the_book(light, html, told):
    def strangers(one):
        return [u for u in one.asked if not u.startswith((html.as_uri(), "data:", "blob:"))]

    assert not told(light, strangers)


def test_nothing_goes_wrong_on_any_page(light, dark, told):
    assert not told(light, lambda one: one.errors)
    assert not told(dark, lambda one: one.errors)


def test_the_search_finds_pages_in_a_book_opened_as_files(light):
    assert [one.facts["results"] for one in light if one.facts and one.path.name == "search.html"][0] >= 3


def test_axe_finds_nothing_to_complain_of(light, dark, told):
    assert not told(light, lambda one: one.violations)
    assert not told(dark, lambda one: one.violations)


def test_no_page_weighs_more_than_three_megabytes(light, told):
    assert not told(light, lambda one: one.weight > 3e6 and f"{one.weight / 1e6:.1f} MB")


def test_mathjax_is_loaded_where_there_are_formulas_only(light, told):
    def wrong(one):
        formulas = 'class="math' in one.path.read_text(encoding="utf-8")
        return formulas != any("tex-svg" in url for url in one.asked)

    assert not told(light, wrong)


BOXES = """() => [...document.querySelectorAll('main *')].filter(e => {
  const s = getComputedStyle(e), r = e.getBoundingClientRect();
  const framed = parseFloat(s.borderTopWidth) + parseFloat(s.borderLeftWidth) > 0;
  const drawn = framed || !/, 0\\)|transparent/.test(s.backgroundColor);
  const things = 'img, svg, svg *, canvas, input, hr';
  const holds = e.innerText?.trim() || e.querySelector(things) || e.matches(things);
  return r.width > 20 && r.height > 8 && s.visibility === 'visible' && drawn && !holds;
}).map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("name", ["notebooks/06_verdict", "notebooks/01_sparsity_and_robustness"])
def test_on_paper_there_are_no_empty_boxes_and_no_switches(chromium, html, name):
    page = chromium.new_page(viewport={"width": 800, "height": 1100}, color_scheme="dark")
    page.set_default_timeout(120_000)
    page.goto((html / f"{name}.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate(BOXES) == []
    shown = page.eval_on_selector_all(
        "main :is(summary:not(.answer > *), button, input)", "all => all.filter(e => e.offsetParent).length"
    )
    figures = page.eval_on_selector_all("main img", "all => all.filter(e => e.offsetParent).map(e => e.src)")
    assert shown == 0 and figures and not [source for source in figures if ".dark." in source]
    page.close()
