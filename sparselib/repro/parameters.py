"""Typed parameters of pages: profiles read from YAML, values checked, filled in, and read back from a notebook.

A page is a subclass of `Parameters`. It says where its notebook is, which blocks of a profile it reads, and which steps
it is drawn from. The same model checks the command line, the notebook and the profile.
"""

import ast
import difflib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparselib import checkpoints, checks
from sparselib.outside import plain, problem, read_yaml, short
from sparselib.repro.step import Step

SCALES = "digits", "mnist", "cifar10"  # the profiles that come first, in this order
LIVE = SCALES[0]  # the profile whose values stand in the notebooks
COLUMNS = 88  # of a notebook's code


class ParameterError(ValueError):
    """A parameter that does not exist or has a value that is not allowed. One line, ready to show."""


class Parameters(BaseModel):
    """The typed parameters of one page."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # strict: true is no number, b"x" no text
    number: ClassVar[int | None] = None
    notebook: ClassVar[str]  # the stem of its file
    folder: ClassVar[str] = "notebooks"
    claim: ClassVar[str] = "–"
    blocks: ClassVar[tuple[str, ...]] = ()  # of a profile, read after what all pages share
    profiles: ClassVar[Path]  # the folder of <profile>.yml
    apart: ClassVar[frozenset[str]] = frozenset()  # code that its notebook need not depend on: see dependencies
    publishable: ClassVar[bool] = True  # its rows belong in results/
    boxes: ClassVar[Mapping[str, int]] = {}  # of its notebook: so many of each class of admonition, see `notebooks`
    judges: ClassVar[tuple[type["Parameters"], ...]] = ()  # the pages whose rows it shows in place of its own

    profile: str = Field(description="the scale: digits, mnist or cifar10")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values):
        """Take plain values only, of a bounded size, before any other check; "[0.5, 0.9]" stands for a list.

        Plain papermill hands lists over as text.
        """
        read = {}
        for name, value in values.items():
            try:
                given = read_yaml(value) if isinstance(value, str) and value[:1] in ("[", "{") else value
            except yaml.YAMLError as error:
                told = f"{name} is no YAML list or mapping, got {short(value)} ({problem(error)})"
                raise ValueError(told) from None
            read[name] = plain(name, given)
        return cls.filled_in(read)

    @classmethod
    def filled_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values with what stands for others replaced by them, before they are checked."""
        return values

    def roles(self) -> list[tuple[dict[str, Any], Step]]:
        """Return (role, step) for all rows of the page: columns that say what the step is to the experiment."""
        return []

    def steps(self) -> list[Step]:
        """Return the steps that the page is drawn from, each once."""
        return list({step.what: step for _, step in self.roles()}.values())

    def sources(self) -> list["Parameters"]:
        """Return the parameters of the pages whose rows this page has: those that it judges, or itself."""
        return [self]

    def seed_list(self) -> list[int]:
        """Return the seeds that the page compares."""
        values = dict(self)
        return list(range(values["seeds"])) if "seeds" in values else [values["seed"]]

    def setting(self) -> str:
        """Return in words what all rows of the page are of: data, network."""
        return ""

    @classmethod
    def of_profile(cls, profile: str, **given: Any) -> Self:
        """Return the parameters as a profile has them, under what is given. Raises what pydantic raises."""
        return cls(**{**cls.usual(profile), **given})

    @classmethod
    def usual(cls, profile: str) -> dict[str, Any]:
        """Return {name: value} as a profile has them. Raises ValueError for a profile that does not exist."""
        known = profiles(cls.profiles)
        values = known[checks.choice("profile", plain("profile", profile), known)]
        shared = {name: value for name, value in values.items() if name in cls.model_fields}
        return shared | {name: value for block in cls.blocks for name, value in values.get(block, {}).items()}


@cache
def profiles(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {name: values} of the profiles in a folder, SCALES first. Raises ParameterError naming the file."""
    found = {}
    rank = {name: number for number, name in enumerate(SCALES)}
    for path in sorted(folder.glob("*.yml"), key=lambda path: (rank.get(path.stem, len(rank)), path.stem)):
        try:
            found[path.stem] = read_yaml(checkpoints.read_bytes(path).decode())
        except (OSError, UnicodeError) as error:
            raise ParameterError(f"{path}: cannot be read: {error}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise ParameterError(f"{path}{where}: {problem(error)}") from None
        if not isinstance(found[path.stem], dict):
            raise ParameterError(f"{path}: must hold names and values, got {type(found[path.stem]).__name__}")
    return found


def check_profile(path: Path, values: dict[str, Any], pages: Iterable[type[Parameters]]) -> None:
    """Raise ParameterError unless a profile gives every page exactly what it needs: file, key, what is allowed."""
    pages = list(pages)
    shared, blocks = set(), defaultdict(set)  # the names that may stand at the top, and in each block
    for page in pages:
        shared.update(page.model_fields)
        for block in page.blocks:
            blocks[block].update(page.model_fields)
    if values.get("profile") != path.stem:
        raise ParameterError(f"{path}: profile must be {path.stem!r}, like the file, got {values.get('profile')!r}")
    refuse_unknown(values, [*blocks, *sorted(shared)], str(path))
    for name in blocks.keys() & values:
        if not isinstance(values[name], dict):
            raise ParameterError(f"{path}: {name} must hold names and values, got {short(values[name])}")
        refuse_unknown(values[name], sorted(blocks[name]), f"{name} in {path}")
    for page in pages:
        try:
            page.of_profile(path.stem)
        except ValidationError as error:
            raise ParameterError(f"{path}: {in_one_line(error, page)}") from None


def find(pages: Mapping[str, type[Parameters]], name: object) -> type[Parameters]:
    """Return a page: by number (5, "5", "05"), or by the name of its notebook, with or without folder and .ipynb."""
    stem = PureWindowsPath(str(name)).name.removesuffix(".ipynb")  # of any system's path
    by_number = {str(page.number): key for key, page in pages.items() if page.number is not None}
    stem = by_number.get(stem.lstrip("0") or "0", stem) if stem.isdigit() else stem
    try:
        return pages[checks.choice("figure", stem, pages)]
    except ValueError as error:
        raise ParameterError(str(error)) from None


def refuse_unknown(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise ParameterError for the first parameter that does not exist, with the closest that does."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ParameterError(f"unknown parameter {name!r} of {where}{hint} (parameters: {', '.join(known)})")


def resolve(page: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    """Return the page's parameters: the profile's values under the given ones (None: as the profile has it).

    Raises ParameterError, in one line, for a name that does not exist or a value that is not allowed.
    """
    refuse_unknown(values, page.model_fields, page.notebook)
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return page.of_profile(given.pop("profile", LIVE), **given)
    except ValueError as error:
        told = in_one_line(error, page) if isinstance(error, ValidationError) else str(error)
        raise ParameterError(told) from None


def resolve_all(pages: Iterable[type[Parameters]], profile: str, given: Mapping[str, Any]) -> list[Parameters]:
    """Return the parameters of several pages under the same given values; each page takes those that it knows.

    A page with the parameter `figures` is handed what the pages that it `judges` are given. Raises ParameterError for
    a name that no page knows.
    """
    pages = list(pages)
    refuse_unknown(given, dict.fromkeys(name for page in pages for name in page.model_fields), "any page")
    found = []
    for page in pages:
        own = {name: value for name, value in given.items() if name in page.model_fields}
        if "figures" in page.model_fields:
            read = {p.notebook: {n: v for n, v in given.items() if n in p.model_fields} for p in page.judges}
            own = {"figures": {name: values for name, values in read.items() if values}, **own}
        found.append(resolve(page, {"profile": profile, **own}))
    return found


def sources(pages: Iterable[Parameters]) -> list[Parameters]:
    """Return the parameters of the pages whose rows the rows of `pages` are, each once."""
    found = []
    for source in (source for page in pages for source in page.sources()):
        if source not in found:
            found.append(source)
    return found


def in_one_line(error: ValidationError, page: type[Parameters]) -> str:
    """Return what a ValidationError of a page says first: the parameter, what is allowed, the value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("value_error", "missing"):  # those name the value already, or there is none
        message += f", got {short(first['input'])}"
    if first["type"] == "string_type" and isinstance(first["input"], (bool, int, float)):
        message += f": as a text, write '\"{first['input']}\"'"
    return f"parameter {where!r} of {page.notebook}: {message}" if where else f"{page.notebook}: {message}"


def overrides(parameters: Parameters) -> dict[str, Any]:
    """Return {name: value} of what differs from the profile: the least that reruns the page."""
    plain = type(parameters).of_profile(parameters.profile)
    return {n: v for n, v in parameters if v != getattr(plain, n)}


def cell(page: type[Parameters]) -> str:
    """Return the source of the notebook's cell of parameters: the live profile's values, each with its meaning."""
    lines = []
    for name, value in page.of_profile(LIVE):
        start, meaning = f"{name}: {type(value).__name__} = ", page.model_fields[name].description
        line = f"{start}{_python(value)}  # {meaning}"
        if len(line) > COLUMNS and isinstance(value, list):
            *items, last = map(_python, value)
            line = _wrapped(f"{start}[", [*(f"{item}," for item in items), f"{last}]  # {meaning}"])
        lines.append(line)
    return "\n".join(lines)


def _wrapped(start, items):
    """Return the items after `start`, on as few lines as they need."""
    lines = [start]
    for item in items:
        if len(lines[-1]) + 1 + len(item) > COLUMNS:
            lines.append("   ")
        lines[-1] += item if lines[-1].endswith("[") else f" {item}"
    return "\n".join(lines)


def _python(value):
    """Return a value as a Python literal with double quotes, as code has it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def from_notebook(page: type[Parameters], namespace: dict[str, Any]) -> Parameters:
    """Return the parameters of a page as its notebook's namespace has them.

    The cell of parameters holds the live profile's values. What papermill injects over it, and what a person has
    changed in it, counts as given; under another profile the rest is as that profile has it. A block of the page
    (papermill's -f hands over a whole profile) counts like its values; those of other pages are passed over. Every
    other plain name is a mistake, which plain papermill would pass in silence: so this is called before the notebook
    defines anything of its own.
    """
    in_profiles = set().union(*profiles(page.profiles).values())
    live, injected, plain = page.of_profile(LIVE), _injected(namespace.get("In", ())), _plain(namespace)
    first = namespace.setdefault("_plain_names", frozenset(plain))  # the set-up cell may run again, after all others
    own = first | _in_its_cell(namespace.get("In", ()))
    given = {}
    for block in page.blocks:
        if isinstance(namespace.get(block), dict):
            given |= {n: v for n, v in namespace[block].items() if n in page.model_fields}
    for name, value in plain.items():
        if name in page.model_fields:
            if name in injected or value != getattr(live, name):
                given[name] = value
        elif name in own and name not in in_profiles:
            given[name] = value  # for `resolve` to refuse
    return resolve(page, given)


def _plain(namespace):
    """Return what a notebook's cells have set so far: values of the kinds that parameters have."""
    kinds = (bool, int, float, str, list, dict, type(None))
    names = [name for name in namespace if not name.startswith("_") and name not in ("In", "Out")]
    return {name: namespace[name] for name in names if isinstance(namespace[name], kinds)}


def _in_its_cell(executed):
    """Return the names that the cell of parameters, as it was run last, sets."""
    for source in reversed(executed):
        try:
            nodes = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign | ast.Assign)]
        except SyntaxError:  # a command of IPython's
            continue
        targets = [target for n in nodes for target in (n.targets if isinstance(n, ast.Assign) else [n.target])]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if "profile" in names and not source.startswith("# Parameters\n"):
            return names
    return set()


def _injected(executed):
    """Return the names that papermill's own cell sets; it is the one with this comment."""
    for source in executed:
        if source.startswith("# Parameters\n"):
            nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
            return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}
    return frozenset()


def assignment(text: str) -> tuple[str, Any]:
    """Return the name and the value of "name=value", the value as YAML in which # begins no comment.

    Raises ParameterError for anything else, saying what to type.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise ParameterError(f"--set takes name=value, got {text!r}")
    try:
        read = _with_hashes(read_yaml(value.replace("#", HASH)))
    except yaml.YAMLError as error:
        raise ParameterError(f"--set {name}: not a YAML value: {short(value)} ({problem(error)})") from None
    if read is None:
        raise ParameterError(
            f"--set {text} gives no value: leave it out, or write --set {name}='\"\"' for an empty text"
        )
    return name, read


HASH = "\ue000"  # a sign of no script, in place of # while YAML reads


def _with_hashes(value):
    if isinstance(value, str):
        return value.replace(HASH, "#")
    if isinstance(value, list):
        return [_with_hashes(one) for one in value]
    if isinstance(value, dict):
        return {_with_hashes(key): _with_hashes(one) for key, one in value.items()}
    return value
