"""What comes from outside: values are read and bounded; texts are shown so that they do nothing.

Names of files and of classes, values, what other programs say: where such a text enters a line of a terminal or a text
of a page, `visible`, `markdown`, `code`, `tags` or `attribute` says it. Whatever it holds, it shows itself: no colours,
no moving cursor, no emphasis, no formula, no tag, no script.
"""

import html
import json
import math
import re
import reprlib
from collections.abc import Iterable
from typing import Any
from unicodedata import category

import yaml

# Begins something in Markdown, or in what MyST adds: formulae, {{names}}, roles, targets.
MARKS = re.compile(r"[\\`*_{}\[\]<>|$&#~\"'^=+!@]|^[-:%.]")
EMPHASIS = re.compile(r"\*\*(.+?)\*\*")

_short = reprlib.Repr()
vars(_short).update(maxlevel=3, maxlist=12, maxdict=6, maxstring=70, maxlong=40, maxother=70)


def short(value: object) -> str:
    """Return a value as code has it; of a long one the ends, of a large one the beginning."""
    return _short.repr(value)


def visible(text: object) -> str:
    r"""Return the text with signs that are not seen, or steer a terminal, written out: "\x1b", "\u202e".

    Lines and spaces stay; a byte of a file's name that is no text is "\udcff".
    """
    return "".join(s if s.isprintable() or s == "\n" or category(s) == "Zs" else ascii(s)[1:-1] for s in str(text))


def markdown(text: object) -> str:
    """Return Markdown that shows the text, in one line: in MyST and in Jupyter, in a sentence and in a table."""
    return MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(visible(text).split()))


def code(text: object) -> str:
    """Return Markdown that shows the text as code, in one line."""
    text = " ".join(visible(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


class Marked(str):
    """Markdown, written by us: `cell` leaves it as it is."""


def cell(text: object) -> str:
    """Return Markdown of a cell of a table: the text; emphasised or as code where all of it is **so** or `so`."""
    if isinstance(text, Marked):
        return text
    if found := re.fullmatch(r"`([^`|]+)`", str(text)):
        return code(found[1])
    if found := EMPHASIS.fullmatch(str(text)):
        return f"**{markdown(found[1])}**"
    return markdown(text)


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table of `cell`s."""
    lines = [list(map(cell, line)) for line in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def captioned(caption: str, table: str) -> str:
    """Return a Markdown table as the MyST directive whose caption, Markdown as well, the book sets and numbers."""
    return f"```{{table}} {caption}\n\n{table}\n```"


def attribute(text: object) -> str:
    """Return the text as the value of an option of a MyST directive (`:alt: …`), where YAML reads it."""
    return json.dumps(" ".join(visible(text).split()), ensure_ascii=False)


def tags(text: object) -> str:
    """Return HTML that shows the text; also fit for an attribute."""
    return html.escape(visible(text))


DEEPEST = 20  # brackets within brackets in a value
LONG, LONGEST = 1000, 100_000  # signs of a text, and of a YAML text
MANY = 1000  # values in one
LARGE = 2**31 - 1  # a whole number


def plain(name: str, value: Any) -> Any:
    """Return a value made of numbers, texts, lists and mappings, 0 for -0.0.

    Raises ValueError, naming it, for other kinds, for what is not finite or not seen, and beyond these bounds: MANY
    values in all, whole numbers of LARGE, texts of LONG signs.
    """
    return _plain(name, value, [0], 0)


def _plain(name, value, count, depth):
    count[0] += 1
    if depth > DEEPEST:  # it may hold itself
        raise ValueError(f"{name} must be nested at most {DEEPEST} deep")
    if count[0] > MANY:
        raise ValueError(f"{name} must hold at most {MANY} values, got more")
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{name} must have texts as names, got {short(wrong[0])}")
        return {_plain(name, k, count, depth + 1): _plain(name, one, count, depth + 1) for k, one in value.items()}
    if isinstance(value, list):
        return [_plain(name, one, count, depth + 1) for one in value]
    if isinstance(value, str):
        if hidden := [sign for sign in value if not sign.isprintable()]:
            raise ValueError(f"{name} holds {hidden[0]!r}, which no value may")
        if len(value) > LONG:
            raise ValueError(f"{name} must be at most {LONG} signs long, got {len(value)}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    elif isinstance(value, int) and abs(value) > LARGE:
        raise ValueError(f"{name} must be at most {LARGE:,} in size, got {short(value)}")
    elif not isinstance(value, (int, float, type(None))):
        raise ValueError(f"{name} must be a number, a text, a list or a mapping, got a {type(value).__name__}")
    return 0.0 if isinstance(value, float) and value == 0 else value


class _Loader(yaml.SafeLoader):
    """YAML of numbers, texts, lists and mappings in which a key stands once; no aliases, which can grow without end.

    Numbers are those of YAML 1.2: 1e-3 is one; 010 is ten; 1_000, 0x10 and 1:30 are texts.
    """

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, f"no alias (*{event.anchor}) is taken", event.start_mark
            )
        if getattr(event, "tag", None) not in (None, "!"):
            told = f"a value of the kind {event.tag.rpartition(':')[2]!r} is not taken"
            raise yaml.constructor.ConstructorError(None, None, told, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name must be a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {  # those of YAML 1.1 but numbers, dates and the merging of mappings
    sign: [(tag, told) for tag, told in resolvers if tag.rpartition(":")[2] in ("bool", "null")]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]{1,100}$"), [*"-+0123456789"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, [*"-+.0123456789"])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def read_yaml(text: str) -> Any:
    """Return the numbers, texts, lists and mappings that a YAML text says. Raises yaml.YAMLError."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"longer than {LONGEST:,} signs")
    depth = deepest = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:  # reading takes time that grows with its square
        raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None


def problem(error: yaml.YAMLError) -> str:
    """Return what is wrong with a YAML text, in one line."""
    return getattr(error, "problem", None) or " ".join(str(error).split())
