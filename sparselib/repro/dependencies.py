"""Which code a result depends on: the definitions of this package reachable from where the computation starts.

Static and by name: from a definition's syntax tree, every name and attribute that leads to another definition of the
package is followed. Comments, docstrings, layout, the annotations of functions and the method `columns` of steps do not
count; nor does the place of a definition, so that code may move between modules and every result stays. It errs on the
safe side (a local name that equals a definition's counts as it), so that what changed is never missed as long as code
is reached by name. Of code of others (a criterion in a package of yours) whole files count: its own, and those of the
modules that it names, short of what is installed; what is installed is not looked into.

Two things are not followed. Tables map names to functions: a step says in `tables` which it picks from and in `chosen`
what it took, and the keys of its inputs speak for them. And the engine, this folder, decides when to compute, not what
comes out; of it, a notebook depends on its page alone.
"""

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
NAME = PACKAGE.name
ENGINE = Path(__file__).parent.name
PAGE = "page"  # the module of the engine that notebooks call
INSTALLED = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]


class CodeError(ValueError):
    """A source was edited after this process imported it, so it cannot tell which code it runs."""


def _stamp(path):
    told = path.stat()
    return told.st_mtime_ns, told.st_size


_IMPORTED = {path: _stamp(path) for path in PACKAGE.rglob("*.py")}


class _Module:
    """A module's definitions (name -> syntax trees), its imports from the package, and its loose statements."""

    def __init__(self, tree):
        self.definitions, self.imports, self.loose = {}, {}, []
        self.followed = {}  # {symbol: (digest, what it names)}, filled by _follow: most are met many times
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == NAME:
                        self.imports[alias.asname or NAME] = alias.name if alias.asname else NAME
            elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == NAME:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in tree.body:
            if isinstance(node, ast.ClassDef):  # how the rows of a step are labelled changes nothing in them
                node.body = [n for n in node.body if getattr(n, "name", "") != "columns"] or [ast.Pass()]
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            elif isinstance(node, (ast.Import, ast.ImportFrom)) or _is_docstring(node):
                continue
            else:
                self.loose.append(node)
                continue
            for name in names:
                self.definitions.setdefault(name, []).append(node)


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _module_file(dotted):
    path = PACKAGE.joinpath(*dotted.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _module(dotted):
    path = _module_file(dotted)
    text, now = path.read_text(encoding="utf-8"), _stamp(path)
    if _IMPORTED.get(path, now) != now:
        told = "run it again (in a notebook: restart the kernel)"
        raise CodeError(f"{path.relative_to(PACKAGE.parent)} was edited after this process had read it: {told}")
    return _Module(ast.parse(text))


def _is_module(dotted):
    return _module_file(dotted).is_file()


def _resolve(dotted):
    """Return the ("module", "symbol") that "package.module.symbol.…" leads to; the symbol is None for a module.

    None for what is neither.
    """
    parts = dotted.split(".")
    # The longest beginning that is a module, then one name in it.
    end = next(end for end in range(len(parts), 0, -1) if _is_module(".".join(parts[:end])))
    module = ".".join(parts[:end])
    if end == len(parts):
        return module, None
    known, symbol = _module(module), parts[end]
    if symbol in known.definitions:
        return module, symbol
    return _resolve(known.imports[symbol]) if symbol in known.imports else None


def _dotted(node):
    """Return "a.b.c" for the attribute chain a.b.c, else None."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _target(chain, module):
    """Return (module, symbol) that an attribute chain "a.b.c" leads to through the module's imports, or None."""
    first, *rest = chain.split(".")
    return _resolve(".".join([module.imports[first], *rest])) if first in module.imports else None


def _uses(nodes, module):
    """Return the set of (module, symbol) that the syntax trees name."""
    found, seen = set(), set()
    for node in (n for tree in nodes for n in ast.walk(tree)):
        if id(node) in seen or not isinstance(getattr(node, "ctx", None), ast.Load):
            continue
        chain = _dotted(node) if isinstance(node, (ast.Attribute, ast.Name)) else None
        if chain is None or chain.split(".")[0] not in module.imports:
            continue
        if resolved := _target(chain, module):
            found.add(resolved)
        seen.update(id(n) for n in ast.walk(node))  # `data` within `data.load` is not the whole module
    return found


class _Essence(ast.NodeTransformer):
    """Leaves what a definition computes: no docstrings, no annotations of functions, no paths of modules."""

    def __init__(self, module):
        self._module = module

    def _function(self, node):
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self._body(node)

    def _body(self, node):
        if node.body and _is_docstring(node.body[0]):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = _function
    visit_ClassDef = _body

    def visit_Attribute(self, node):
        """Let `costs.cost` and `costs.cost` be the same where they lead to the same definition."""
        parts = (_dotted(node) or "").split(".")
        for end in range(len(parts), 1, -1):
            found = _target(".".join(parts[:end]), self._module)
            if found is None:
                return node
            if found[1] == parts[end - 1]:
                return ast.parse(".".join(parts[end - 1 :]), mode="eval").body
        return self.generic_visit(node)


def _text(nodes, module):
    """Return the code of the syntax trees without docstrings, comments, layout, annotations and paths of modules."""
    copies = [ast.parse(ast.unparse(node)) for node in nodes]
    return "\n".join(ast.unparse(_Essence(module).visit(copy)) for copy in copies)


def _closure(start, *, stop=frozenset(), page=False):
    """Return {"module.symbol": digest} of all within reach of `start`, pairs (module, symbol), short of `stop`.

    The engine is left out; with `page`, all of it but its page.
    """
    engine, shown = f"{NAME}.{ENGINE}", f"{NAME}.{ENGINE}.{PAGE}" if page else None
    digests, todo = {}, list(start)
    while todo:
        dotted, symbol = todo.pop()
        label = f"{dotted}.{symbol or '*'}"
        ours = (dotted == engine or dotted.startswith(engine + ".")) and dotted != shown
        if label in digests or label in stop or dotted in stop or ours:
            continue
        digests[label], named = _follow(dotted, symbol)
        todo += named
    return digests


def _follow(dotted, symbol):
    """Return (digest, {(module, symbol)} that it names) of one definition."""
    module = _module(dotted)
    if symbol not in module.followed:
        symbols = module.definitions if symbol is None else [symbol]  # a module used as a value: all of it
        nodes = [*(node for name in symbols for node in module.definitions[name]), *module.loose]
        digest = hashlib.sha256(_text(nodes, module).encode()).hexdigest()[:16]
        local = {n.id for tree in nodes for n in ast.walk(tree) if isinstance(n, ast.Name)} & module.definitions.keys()
        module.followed[symbol] = digest, _uses(nodes, module) | {(dotted, name) for name in local}
    return module.followed[symbol]


def of_objects(*things: type, tables: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return {"module.symbol": digest} of the code that classes and functions of the package depend on.

    `tables` ("module.NAME") are not followed. Of code of others, files count: see above.
    Raises CodeError when a source of the package was edited meanwhile.
    """
    own = {thing for thing in things if thing.__module__.split(".")[0] == NAME}
    found = dict(_of_symbols(frozenset((thing.__module__, thing.__name__) for thing in own), tables))
    for thing in set(things) - own:
        found |= _of_others(thing)
    return found


def of_names(names: Iterable[str], tables: Iterable[str] = ()) -> dict[str, str]:
    """Return what `of_objects` does, of definitions of the package by name ("module.symbol"), but for those gone."""
    places = (str(name).rpartition(".")[::2] for name in names)
    known = {
        (module, symbol) for module, symbol in places if _is_module(module) and symbol in _module(module).definitions
    }
    return dict(_of_symbols(frozenset(known), frozenset(tables)))


@cache  # whatever becomes of the files, this thing is what they held when it was met
def _of_others(thing):
    file = inspect.getsourcefile(thing)
    text = Path(file).read_bytes() if file and Path(file).is_file() else inspect.getsource(thing).encode()
    files = {
        module: path.read_bytes() for module, path in _named(sys.modules.get(thing.__module__), {thing.__module__})
    }
    texts = {f"{thing.__module__}.{thing.__qualname__}": text, **files}
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


def _named(module: ModuleType | None, seen: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of the modules that a module of others names, and those that they name: not what is installed.

    What a cell of a notebook names is not followed: of a function that is defined there, only its own text counts.
    """
    for value in list(vars(module).values()) if module and module.__name__ != "__main__" else ():
        name = str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None))
        other = sys.modules.get(name) if name.split(".")[0] != NAME else None
        file = Path(getattr(other, "__file__", None) or "").resolve()
        if other in (None, module) or name in seen or not file.is_file() or any(map(file.is_relative_to, INSTALLED)):
            continue
        seen.add(name)
        yield name, file
        yield from _named(other, seen)


@cache
def _of_symbols(start, tables):
    return _closure(start, stop=tables)


@cache
def of_script(text: str, apart: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return {"module.symbol": digest} of the package code that a script (a notebook's code cells) depends on.

    `apart` (modules and "module.symbol") is left out: what steps compute, for which their own keys speak.
    """
    tree = ast.parse(text)
    return _closure(_uses(tree.body, _Module(tree)), stop=apart, page=True)


def digest(symbols: dict[str, str]) -> str:
    """Return one digest for a dict of them; in which module a definition stands does not count."""
    return _digest(frozenset(symbols.items()))


@cache  # thousands of steps have the same code
def _digest(symbols):
    placeless = sorted((label.rpartition(".")[2], text) for label, text in symbols)
    return hashlib.sha256(repr(placeless).encode()).hexdigest()[:16]


def changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the sorted names whose digests differ between two dicts."""
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def summary(names: list[str]) -> str:
    """Return the first few of the changed names, in words."""
    short = [name.removeprefix(f"{NAME}.") for name in names]
    return ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
