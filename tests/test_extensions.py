"""The small Sphinx extensions of the book: docstrings as the reference shows them, and the launch links."""

import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import sparselib

ROOT = Path(__file__).resolve().parents[1]
# Wings and ground: what a reader may import; the engine and this paper's experiments are not for others.
INTERNAL = {"__main__", "cli", "checks", "vision", "others", "outside", "repro", "experiments"}


def extension(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docstrings_become_fields_lists_tables_and_code():
    text = """Return `x` times |θ|, see `a_b` and "c".

    Args: as `prune`, and
        x: an image,
            in [0, 1]. y: its label.
        mean, std: of the pixels.
    Raises: ValueError for an x
    that is none.

    | a | b |
    |---|---|
    | `x` | \\|θ\\| |

        raw_ * text
    """
    first, *others = text.rstrip().splitlines()
    told = extension("api").translated([first, *(line[4:] for line in others)])
    assert told[0] == 'Return ``x`` times \\|θ\\|, see ``a_b`` and \\"c\\".'
    fields = [line for line in told if line.startswith((":A", ":R", "   - **"))]
    assert fields == [
        ":Arguments: as ``prune``, and",
        "   - **x**: an image, in [0, 1]. y: its label.",
        "   - **mean, std**: of the pixels.",
        ":Raises: ValueError for an x that is none.",
    ]
    table = told.index(".. list-table::")
    assert [line.strip() for line in told[table + 3 : table + 7]] == ["* - a", "- b", "* - ``x``", "- \\|θ\\|"]
    assert told.index("::") < told.index("       raw_ * text")


def test_the_reference_has_every_module_that_readers_import():
    page = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "rerun").glob("api*.md"))
    shown = set(re.findall(r"automodule:: sparselib\.([\w.]+)", page))
    found = {m.name.removeprefix("sparselib.") for m in pkgutil.walk_packages(sparselib.__path__, "sparselib.")}
    wanted = {name for name in found if name.split(".")[0] not in INTERNAL and name not in ("detection", "robustness")}
    assert wanted <= shown <= found


def test_pages_without_a_number_count_their_figures_by_letters_of_their_names():
    pages = ["book/intro", "notebooks/06_verdict", "book/one", "book/own_data", "book/own_detector"]
    numbered = {"book/one": {"": (1,), "#a": (1, 1)}, "book/own_data": {"": ()}}
    found = extension("numbering").prefixes(pages, numbered, "book/intro")
    assert found == {"book/intro": "", "notebooks/06_verdict": "V", "book/own_data": "D", "book/own_detector": "De"}


FIGURE = """# {title}

```{{figure}} /a.svg
:name: fig-{name}
:alt: A line that rises.

It rises.
```

See {{numref}}`fig-{other}`.
"""


def test_figures_count_by_page_and_references_say_so(tmp_path):
    text = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    (tmp_path / "a.svg").write_text(text, encoding="utf-8")
    toc = "format: jb-book\nroot: front\nparts:\n  - chapters: [{file: 06_verdict}]\n"
    toc += "  - numbered: 1\n    chapters: [{file: one}]\n  - chapters: [{file: own_data}]\n"
    (tmp_path / "_toc.yml").write_text(toc, encoding="utf-8")
    (tmp_path / "_config.yml").write_text(
        f"sphinx:\n  local_extensions: {{numbering: {ROOT / 'book' / '_ext'}}}\n"
        "  config: {numfig: true, numfig_secnum_depth: 1}\n",
        encoding="utf-8",
    )
    names = ["front", "06_verdict", "one", "own_data"]
    for name, other in zip(names, [*names[1:], "front"], strict=True):
        text = FIGURE.format(title=name, name=name, other=other)
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(tmp_path), "-W"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    numbers = {"front": "Fig. 1", "06_verdict": "Fig. V.1", "one": "Fig. 1.1", "own_data": "Fig. D.1"}
    for name, other in zip(names, [*names[1:], "front"], strict=True):
        page = (tmp_path / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")
        assert f'<span class="caption-number">{numbers[name]} </span>' in page
        assert f'<span class="std std-numref">{numbers[other]}</span>' in page


def options(url):
    config = SimpleNamespace(companion_url=url, html_theme_options={"show_toc_level": 2})
    extension("launch")._configure(None, config)
    return config.html_theme_options


def test_launch_links_come_from_one_address_and_are_absent_without_it():
    assert options("") == {"show_toc_level": 2}
    found = options("https://github.com/owner/name/")
    assert found["repository_url"] == "https://github.com/owner/name" and found["show_toc_level"] == 2
    assert set(found["launch_buttons"]) >= {"binderhub_url", "colab_url"}
    with pytest.raises(ValueError, match="companion_url must be https://github.com/owner/name or empty, got 'x'"):
        options("x")


def test_the_address_is_not_set_here():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]
    assert settings["config"]["companion_url"] == ""
    files = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "book" / "_ext").glob("*.py")}
    assert set(settings["local_extensions"]) == {name for name, text in files.items() if "def setup(" in text}
