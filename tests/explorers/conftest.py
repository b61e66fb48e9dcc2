"""Open one interactive piece of the book in a browser, offline."""

import json
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "book" / "_static"


@pytest.fixture(scope="session")
def open_piece(chromium):
    """Return a function that opens one piece over the given data, on an otherwise empty page."""

    def opened(kind, data):
        page = chromium.new_context(offline=True).new_page()
        content = f'<script type="application/json">{json.dumps(data)}</script>'
        page.set_content(f'<div class="explorer" data-explorer="{kind}">{content}</div>')
        for style in (STATIC / "book.css", *(STATIC / "explorers").glob(f"{kind}.css")):
            page.add_style_tag(content=style.read_text(encoding="utf-8"))
        for script in (STATIC / "explorers.js", STATIC / "explorers" / f"{kind}.js"):
            page.add_script_tag(content=script.read_text(encoding="utf-8"))
        assert page.locator("[data-explorer]").get_attribute("data-ready") == "yes"
        return page

    return opened
