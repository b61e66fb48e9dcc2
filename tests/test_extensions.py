"""The small Sphinx extensions of the book: docstrings as the reference shows them, and the launch links."""

import importlib.util
import pkgutil
import re
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
