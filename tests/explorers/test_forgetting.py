"""The explorer of forgotten images: at each sparsity those whose vote was right and is wrong now."""

import re

import pytest
import torch

pytestmark = pytest.mark.browser
SPARSITIES = (0.0, 0.5, 0.9)


@pytest.fixture
def votes():
    """Return labels, the votes of dense networks, and {sparsity: votes of sparse ones} for 12 images of 3 classes."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(3, (12,), generator=rng)
    dense = y.clone()
    dense[0] = (y[0] + 1) % 3  # wrong from the start: cannot be lost
    sparse = {s: dense.clone() for s in SPARSITIES}
    sparse[0.5][3] = (y[3] + 1) % 3
    sparse[0.9][3:8] = (y[3:8] + 1) % 3
    sparse[0.9][0] = y[0]  # gained
    return y, dense, sparse


def test_the_lost_images_appear_by_keyboard(open_piece, votes):
    y, dense, sparse = votes
    lost = {s: (dense == y) & (own != y) for s, own in sparse.items()}
    levels = [
        {"sparsity": s, "lost": int(lost[s].sum()), "gained": int(((dense != y) & (own == y)).sum()), "accuracy": 0.9}
        for s, own in sparse.items()
    ]
    images = [
        {"pixels": [0, 85, 170, 255], "label": int(y[k]), "dense": int(dense[k]),
         "sparse": [int(own[k]) for own in sparse.values()]}
        for k in torch.stack(list(lost.values())).any(0).nonzero()[:, 0]
    ]  # fmt: skip
    common = {"height": 2, "width": 2, "classes": ["a", "b", "c"], "tested": 12, "seeds": 3, "dense": 0.92}
    page = open_piece("forgetting", {**common, "levels": levels, "images": images})
    slider = page.get_by_role("slider", name="Sparsity")
    slider.focus()
    for s in reversed(SPARSITIES):  # the default view shows most
        told = page.inner_text(".told")
        assert told.startswith(f"Sparsity {s:g}: of 12 images, {int(lost[s].sum())} ")
        assert int(re.search(r"(\d+) gained", told)[1]) == int(((dense != y) & (sparse[s] == y)).sum())
        captions = page.locator(".lost figcaption").all_inner_texts()
        assert captions == [f"{'abc'[y[k]]} → {'abc'[sparse[s][k]]}" for k in lost[s].nonzero()[:, 0]]
        page.keyboard.press("ArrowLeft")
    page.set_viewport_size({"width": 360, "height": 700})
    page.keyboard.press("End")
    assert page.locator(".lost canvas").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
