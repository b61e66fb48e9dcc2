"""A style of bibliographies whose entries are called as the text calls them: "Ayle et al., 2022"."""

from collections import Counter

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle


class Labels(BaseLabelStyle):
    def format_labels(self, sorted_entries):
        called = [f"{_authors(entry)}, {entry.fields.get('year', 'n.d.')}" for entry in sorted_entries]
        often, seen = Counter(called), Counter()
        for label in called:
            seen[label] += 1
            yield label + (" abcdefgh"[seen[label]] if often[label] > 1 else "")


def _authors(entry):
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [
        " ".join([*person.prelast_names, *person.last_names]).replace("{", "").replace("}", "") for person in people
    ]
    if not names:
        return entry.fields.get("organization") or entry.fields.get("title", entry.key)
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


class Style(Plain):
    default_label_style = Labels
    default_sorting_style = "author_year_title"


def setup(app):
    register_plugin("pybtex.style.formatting", "author_year", Style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
