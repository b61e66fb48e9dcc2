"""Finish the pages once they are built: figures for both themes, no script without use, nothing in a reader's way."""

import json
import re
import shutil
import zlib
from pathlib import Path

import figures
import numbering
from bs4 import BeautifulSoup

DONE = "data-finished"
IMAGE = re.compile(r"_images/([^\"'?#)\s]+)")
MATHJAX = "tex-svg.js"
SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')
ICON = re.compile(r"\bfa-([a-z0-9-]+)")
GLYPH = re.compile(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}')  # of an icon, in the style sheet
SEARCH = ("searchtools.js", "searchindex.js")  # of the page of results, which the field of every page leads to
FONTAWESOME = "scripts/fontawesome.js"  # 1.5 MB that draw the icons once more; the style sheet has them as a font


def setup(app):
    app.connect("build-finished", _finish)
    source = b"".join(Path(file).read_bytes() for file in (__file__, figures.__file__, numbering.__file__))
    return {
        "env_version": zlib.crc32(source),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }  # all pages anew


def _finish(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    numbers = numbering.before(app.env)
    shown, known = set(), {f"{name}.html" for name in (*app.env.found_docs, "genindex", "search", "index")}
    for page in sorted(out.rglob("*.html")):
        where = page.relative_to(out)
        if not where.parts[0].startswith("_") and where.as_posix() not in known:  # of an earlier build
            page.unlink()
            continue
        text = page.read_text(encoding="utf-8")
        if "_static" not in page.parts and "<body" in text and DONE not in text:
            text = finished(text, page, numbers.get(where.with_suffix("").as_posix(), ""))
            page.write_text(text, encoding="utf-8")
        shown |= set(IMAGE.findall(text))
    for image in (out / "_images").glob("*"):
        if image.name not in shown:  # of an earlier build
            image.unlink()
    _without_ballast(out / "_static")
    for path in (out / "_sources").rglob("*.ipynb"):
        path.write_text(to_run(path.read_text(encoding="utf-8")), encoding="utf-8")


def to_run(notebook: str) -> str:
    """Return a notebook, as JSON, without its outputs: who downloads it runs it, and the page shows them."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _without_ballast(static):
    """Delete what no page asks for: maps of foreign sources, translations, the icons as a script."""
    for path in (*static.rglob("*.map"), static / FONTAWESOME):
        path.unlink(missing_ok=True)
    shutil.rmtree(static / "locales", ignore_errors=True)
    files = (*static.parent.rglob("*.html"), *static.rglob("*.js"))
    shown = {name for path in files for name in ICON.findall(path.read_text(encoding="utf-8", errors="replace"))}
    for path in static.glob("styles/pydata-sphinx-theme.css"):
        rules = path.read_text(encoding="utf-8")
        rules = GLYPH.sub(lambda rule: rule[0] if shown & set(ICON.findall(rule[0])) else "", rules)
        path.write_text(rules, encoding="utf-8")


def finished(text: str, page: Path, number: str = "") -> str:
    """Return a built page, finished; `page` is where it lies, with the images that it shows.

    `number`: what stands before the counts of the page: "18.".
    """
    soup = BeautifulSoup(text, "html.parser")
    soup.html[DONE] = ""
    for image in soup.select("img.chart, img.picture"):
        _for_both_themes(soup, image, page.parent / image["src"])
    idle = [FONTAWESOME]
    idle += [] if soup.select(".math") else [MATHJAX]
    idle += [] if page.name == "search.html" else SEARCH
    for script in soup.find_all("script", src=re.compile("|".join(map(re.escape, idle)))):
        script.decompose()
    for cell in soup.select("main td"):
        if len(cell.get_text()) > 28:
            cell["class"] = [*cell.get("class", []), "long"]  # no column of single words on a phone
    _numbered(soup, number)
    _told_apart(soup)
    return str(soup)


def _numbered(soup, page):
    """Number the captions of tables by page: those of Markdown, which Sphinx counts, and those that are HTML alike."""
    for count, caption in enumerate(soup.select("main table > caption"), 1):
        for other in caption.select(".caption-number"):
            other.decompose()
        number = soup.new_tag("span", attrs={"class": "caption-number"})
        number.string = f"Table {page}{count} "
        caption.insert(0, number)


def _for_both_themes(soup, image, light):
    """Put a second drawing beside a figure's, of which the theme shows one."""
    dark = light.with_suffix(".dark.svg")
    if light.suffix != ".svg" or "only-light" in image["class"]:
        return
    svg = light.read_text(encoding="utf-8")
    light.write_text(figures.smaller(svg), encoding="utf-8")
    dark.write_text(figures.dark(figures.smaller(svg)), encoding="utf-8")
    if size := SIZE.search(svg):  # room is kept until it is there
        image["width"], image["height"] = (str(round(float(points) * 4 / 3)) for points in size.groups())
    other = soup.new_tag("img", attrs={**image.attrs, "src": image["src"].replace(".svg", ".dark.svg")})
    image["class"], other["class"] = [*image["class"], "only-light"], [*other["class"], "only-dark"]
    image["loading"] = other["loading"] = "lazy"  # while one is hidden it is not even fetched
    image.wrap(soup.new_tag("span", attrs={"class": "themed"}))  # the theme hides captions that stand beside
    image.insert_after(other)


def _told_apart(soup):
    """Cure what screen readers stumble over in what theme and extensions write."""
    for node in soup.select("summary[aria-label], button.theme-switch-button, button.search-button-field"):
        del node["aria-label"]  # what it says is its name
    for number, node in enumerate(soup.select("button.theme-switch-button")):
        label = soup.new_tag("span", attrs={"class": "visually-hidden", "id": f"colour-mode-{number}"})
        label.string = "Color mode"
        node.insert(0, label)
    for node in soup.select("summary:has(> .toctree-toggle)"):
        link = node.find_previous("a")
        node["aria-label"] = f"Pages below {link.get_text(strip=True)}" if link else "Pages below"
    for node in soup.select(".bd-sidebar-primary .sidebar-primary-item:has(> .navbar-brand)"):
        node["role"], node["aria-label"] = "navigation", "Front page"
    for node in soup.select(".citation-list, .citation"):
        del node["role"]
