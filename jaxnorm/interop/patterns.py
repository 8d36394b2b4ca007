"""Name patterns, and the paths that they map to."""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})
Names = Mapping[str, str | None] | Callable[[str], str | None]


def matcher(pattern: str, separator: str) -> Callable[[str], tuple[str, ...] | None]:
    """Returns a function from a name to what the pattern's stars match, or None.

    `*` matches a name between two separators, or part of one; `**` any number of names.

    >>> matcher("layer*.*.conv", ".")("layer1.0.conv")
    ('1', '0')
    """
    parts = [each for each in re.split(r"(\*\*|\*)", pattern) if each]

    def match(name: str) -> tuple[str, ...] | None:
        # Not a regular expression, which takes exponential time for several stars: what did
        # not match once is not tried again.
        failed = set()

        def rest(number: int, start: int) -> tuple[str, ...] | None:
            if number == len(parts):
                return () if start == len(name) else None
            if (number, start) in failed:
                return None
            part = parts[number]
            if part in ("*", "**"):
                end = name.find(separator, start) if part == "*" else -1
                # Stars match as much as they can.
                for stop in range(len(name) if end < 0 else end, start - 1, -1):
                    others = rest(number + 1, stop)
                    if others is not None:
                        return name[start:stop], *others
            elif name.startswith(part, start):
                others = rest(number + 1, start + len(part))
                if others is not None:
                    return others
            failed.add((number, start))
            return None

        return rest(0, 0)

    return match


class Table:
    """Maps patterns to values; the first pattern that matches applies.

    Attributes:
      unused: the patterns that have matched nothing so far.
    """

    def __init__(self, entries: Mapping[str, Any] | Iterable[str], separator: str):
        table = entries if isinstance(entries, Mapping) else dict.fromkeys(entries, True)
        self._rows = [(each, matcher(each, separator), table[each]) for each in table]
        self.unused = list(table)

    def find(self, name: str) -> tuple[tuple[str, ...], Any] | None:
        """Returns what the stars match, and the value; None if no pattern matches."""
        for pattern, match, value in self._rows:
            stars = match(name)
            if stars is not None:
                if pattern in self.unused:
                    self.unused.remove(pattern)
                return stars, value
        return None


class Paths:
    """Maps the names of modules to paths in the template.

    Attributes:
      unused: the patterns that have matched nothing so far.
    """

    def __init__(self, names: Names, separator: str):
        self._separator = separator
        self._names = None if isinstance(names, Mapping) else names
        self._table = Table(names if isinstance(names, Mapping) else {}, separator)

    @property
    def unused(self) -> list[str]:
        return self._table.unused

    def __getitem__(self, module: str) -> tuple[str, ...] | None:
        """The path of a module, by default its own name; None if it is left out."""
        if self._names is not None:
            target = self._names(module)
        else:
            stars, target = self._table.find(module) or ((), module)
            if stars and target is not None:
                target = _filled(target, stars)
        if target is None:
            return None
        if any(each in (".", "..") for each in target.split("/")):
            raise ValueError(
                f"{module} is mapped to {target!r}, but a path starts at the top of the "
                'variables; write it out, as in "Block_0/BatchNorm_0".'
            )
        # The text that `**` matches, as in "block.**", may contain separators.
        parts = target.replace(self._separator, "/").split("/")
        return tuple(each for each in parts if each)


def _filled(target: str, stars: tuple[str, ...]) -> str:
    try:
        return target.format(*stars)
    except (IndexError, KeyError):
        raise ValueError(
            f"the path {target!r} does not match its pattern's {len(stars)} stars; "
            "write {} for each, or {0} and {1} in another order."
        ) from None
