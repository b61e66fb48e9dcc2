"""Take pictures of every page, light and dark, wide and narrow: `make screenshots`."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

# Figures further down are fetched when they come into view.
SHOWN = """() => Promise.all([...document.images].filter(image => image.offsetParent).map(image => {
  image.loading = 'eager';
  return image.decode().catch(() => null);
}))"""


def main(html: Path, out: Path) -> None:
    """Write <page>-<theme>-<width>.png of every page of the book in `html` into `out`."""
    pages = [
        p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts and "<main" in p.read_text(encoding="utf-8")
    ]
    out.mkdir(parents=True, exist_ok=True)
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            for width in (1300, 390):
                context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
                context.add_init_script(
                    f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
                )
                page = context.new_page()
                for source in pages:
                    page.goto(source.as_uri())
                    page.evaluate("window.MathJax?.startup?.promise")
                    page.evaluate(SHOWN)
                    page.screenshot(path=out / f"{source.stem}-{theme}-{width}.png", full_page=True)
                context.close()
        browser.close()
    print(f"{4 * len(pages)} pictures in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
