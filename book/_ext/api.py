"""The docstrings of the library, which are plain text with a little Markdown, as autodoc wants them."""

import re

CODE = re.compile(r"(?<![`:\w])`([^`]+)`(?![`_])")
SECTION = re.compile(r"(Args|Returns|Raises|Yields):\s*(.*)")
ENTRY = re.compile(r"((?:\*{0,2}[A-Za-z]\w*)(?:, \*{0,2}[A-Za-z]\w*)*): (.*)")
CALLED = {"Args": "Arguments"}


def setup(app):
    app.connect("autodoc-process-docstring", _translate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _translate(app, what, name, obj, options, lines):
    lines[:] = translated(lines)


def translated(lines):
    """Return the lines of a docstring in reStructuredText: sections as fields, their entries as lists, tables, code."""
    found, rest = [], list(lines)
    while rest:
        line = rest.pop(0)
        if section := SECTION.fullmatch(line):
            own = _taken(
                rest, lambda line, text=section[2]: line[:1] == " " or text and line and not SECTION.match(line)
            )
            found += ["", *_field(CALLED.get(section[1], section[1]), section[2], own), ""]
        elif line.startswith("| "):
            found += ["", *_table([line, *_taken(rest, lambda line: line.startswith("|"))]), ""]
        elif line[:1] == " ":
            found += [
                "",
                "::",
                "",
                f"   {line}",
                *(f"   {r}" for r in _taken(rest, lambda li: not li or li[:1] == " ")),
                "",
            ]
        else:
            found.append(_inline(line))
    return found


def _taken(rest, belongs):
    """Return the first lines that belong, and take them away from the rest."""
    own = []
    while rest and belongs(rest[0]):
        own.append(rest.pop(0))
    return own


def _field(name, text, lines):
    """Return a field: its text, then a list of its entries "name: what it is"."""
    entries, within = [], [line for line in lines if line[:1] == " "]
    indent = min((len(line) - len(line.lstrip()) for line in within), default=0)
    for line in lines:
        entry = ENTRY.fullmatch(line[indent:]) if line[:1] == " " else None
        if entry:
            entries.append(f"- **{entry[1].replace('*', '')}**: {_inline(entry[2])}")
        elif entries and line[:1] == " ":
            entries[-1] += f" {_inline(line.strip())}"
        else:
            text += f" {line.strip()}"
    return [f":{name}: {_inline(text.strip())}", *([""] if entries else []), *(f"   {entry}" for entry in entries)]


def _inline(line):
    """Return a line with its code marked, and what has a meaning of its own in reStructuredText made plain."""
    parts = CODE.split(line)  # text, code, text, …
    plain = [re.sub(r"(?<!\\)[|*\"']|(?<!\\)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]]
    return "".join(text for pair in zip(plain, [*code, ""], strict=True) for text in pair)


def _table(lines):
    """Return a Markdown table as a list-table."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    rows = [row for row in rows if set("".join(row)) - set("-: ")]
    found = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        found += [f"   {'  -' if i else '* -'} {_inline(cell)}" for i, cell in enumerate(row)]
    return found
