"""The certificate by votes says what `certify` says of the same votes."""

import pytest

from sparselib.robustness import certify

pytestmark = pytest.mark.browser
SIGMAS, NS, ALPHA = [0.25, 0.5], [10, 1000], 0.001
VOTES = [[[10, 0, 0], [940, 50, 10]], [[5, 3, 2], [480, 400, 120]]]  # for each σ, for each n


@pytest.fixture(scope="module")
def data():
    at = []
    for sigma, votes in zip(SIGMAS, VOTES, strict=True):
        bound = [certify.lower_bound(v[0], n, ALPHA) for v, n in zip(votes, NS, strict=True)]
        cap = [certify.radius_cap(sigma, n, ALPHA) for n in NS]
        copy = [0, 85, 170, 255]
        at.append({"copy": copy, "counts": votes, "picked": 0, "bound": bound, "radius": [0.001, 0.39], "cap": cap})
    images = [{"title": "our seven", "label": 0, "at": at}, {"title": "another", "label": 2, "at": at[::-1]}]
    return {
        "classes": ["7", "1", "3"], "side": 2, "alpha": ALPHA, "sigmas": SIGMAS, "ns": NS, "images": images,
        "start": {"sigma": 0, "n": 1},
    }  # fmt: skip


def test_every_combination_is_told_by_keyboard(open_piece, data):
    page = open_piece("votes", data)
    assert "σ = 0.25, n = 1000: 940 of 1000 noisy copies are named 7" in page.inner_text(".told")
    for title, image in ((image["title"], image) for image in data["images"]):
        page.locator("select").select_option(title)
        for s, sigma_key in enumerate(("Home", "End")):
            page.get_by_role("slider", name="Noise σ").focus()
            page.keyboard.press(sigma_key)
            for i, n_key in enumerate(("Home", "End")):
                page.get_by_role("slider", name="Noisy copies n").focus()
                page.keyboard.press(n_key)
                told, own = page.inner_text(".told"), image["at"][s]
                assert f"σ = {SIGMAS[s]}, n = {NS[i]}: {own['counts'][i][0]} of {NS[i]} noisy copies" in told
                assert f"label: {data['classes'][image['label']]}" in told
                assert f"its probability is {100 * own['bound'][i]:.1f} % (α = 0.001)" in told
                if own["bound"][i] > 0.5:
                    assert f"within radius {own['radius'][i]:.3f} (L2)" in told
                    assert f"allow is {own['cap'][i]:.3f}" in told
                else:
                    assert "no class is certified, the classifier abstains" in told
                assert page.locator("svg rect.id").count() == 1


def test_it_fits_a_narrow_page(open_piece, data):
    page = open_piece("votes", data)
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
