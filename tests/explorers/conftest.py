"""Open one interactive piece of the book in a browser, offline."""

import json
import shutil
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "book" / "_static"


@pytest.fixture(scope="session")
def open_piece():
    """Return a function that opens one piece over the given data, on an otherwise empty page."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium on the PATH")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])

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

        yield opened
        chromium.close()
