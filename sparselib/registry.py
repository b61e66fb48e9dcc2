"""Tables of named parts that others may add to without editing the project."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

T = TypeVar("T")
Part = TypeVar("Part", bound=Callable)


class Registry(Mapping[str, T]):
    """Names -> functions or classes of one kind: the library's own (`own` has their names) and those of others.

    Another part is added by a decorator, `@table.register("name")`, or by an installed package that names it as an
    entry point of the `group`. Entry points are loaded once, when the table is first read; one that fails is left out
    with a warning.
    """

    def __init__(self, group: str, parts: dict[str, T]) -> None:
        self.group, self.own = group, tuple(parts)
        self._parts: dict[str, Any] = dict(parts)
        self._complete = False

    def register(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that adds a function or class by this name, and gives it back as it is.

        What has the same module and name as the one before, a notebook's cell that is run again, replaces it.
        Raises: ValueError for a name that is no word or belongs to another part, TypeError for what is not callable.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"name must be a word of letters, digits and _, got {name!r}")

        def add(part: Part) -> Part:
            if not callable(part):
                raise TypeError(f"part {name!r} must be a function or class, got {part!r}")
            if name in self._parts and _origin(self._parts[name]) != _origin(part):
                raise ValueError(f"name {name!r} of {self.group} is taken by {_origin(self._parts[name])}")
            self._parts[name] = part
            return part

        return add

    def _read(self):
        if not self._complete:
            self._complete = True  # first, as what is loaded may read the table
            for entry in entry_points(group=self.group):
                try:
                    self.register(entry.name)(entry.load())
                except Exception as error:  # of other people's code
                    warnings.warn(f"entry point {entry.name} = {entry.value} is left out: {error}", stacklevel=4)
        return self._parts

    def __getitem__(self, name: str) -> T:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _origin(part):
    return f"{getattr(part, '__module__', None)}.{getattr(part, '__qualname__', part)}"
