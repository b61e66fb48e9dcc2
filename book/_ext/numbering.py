"""Count figures and tables by page on pages without a number, too: "Fig. V.1" on the page of the verdict.

Sphinx counts by page where a page has a number, and on through the whole book where it has none.
"""

from collections.abc import Iterable, Mapping


def setup(app):
    app.connect("env-get-updated", _renumber, priority=900)  # after Sphinx, at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _renumber(app, env):
    """Give numbers by page to what Sphinx has numbered; return the pages to be written anew."""
    letters = prefixes(env.toc_fignumbers, env.toc_secnumbers, env.config.root_doc)
    for page, letter in letters.items():
        for found in env.toc_fignumbers[page].values():
            for count, name in enumerate(found, 1):
                found[name] = (letter, count) if letter else (count,)
    return sorted(letters)


def prefixes(pages: Iterable[str], numbered: Mapping[str, Mapping], front: str = "") -> dict[str, str]:
    """Return {page: what stands before its counts} of the pages without a number.

    It is the shortest beginning of the last word of the page's name that no other one has; of the front page nothing.

    Args: pages: in the order of the book. numbered: {page: {…}}, not empty where the page has a number.
    """
    found: dict[str, str] = {}
    for page in (page for page in pages if not any(numbered.get(page, {}).values())):
        word = page.replace("/", "_").split("_")[-1].capitalize()
        free = (word[:length] for length in range(1, len(word) + 1) if word[:length] not in found.values())
        found[page] = "" if page == front else next(free, word)
    return found


def before(env) -> dict[str, str]:
    """Return {page: what stands before the count of its figures and tables}: "18." or "V."; not of the front page."""
    letters = prefixes(env.toc_fignumbers, env.toc_secnumbers, env.config.root_doc)
    numbers = {page: own[""][0] for page, own in env.toc_secnumbers.items() if own.get("")}
    return {page: f"{mark}." for page, mark in {**letters, **numbers}.items() if mark}
