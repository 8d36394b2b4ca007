"""Patterns of names: `*` is a name between separators, or part of one, `**` any number."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


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


class Selection:
    """The paths that at least one of some patterns matches.

    Attributes:
      patterns: the patterns.

    Raises:
      TypeError: a pattern is not a string.

    >>> "encoder/BatchNorm_0" in Selection(["encoder/*"])
    True
    """

    def __init__(self, patterns: Iterable[str]):
        self.patterns = tuple(patterns)
        for each in self.patterns:
            if not isinstance(each, str):
                raise TypeError(
                    f"the pattern {each!r} is not a string; give the path of a module, "
                    'such as "encoder/BatchNorm_0" or "encoder/**".'
                )
        self._matchers = {each: matcher(each, "/") for each in self.patterns}
        self._unused, self._seen = list(self.patterns), list[str]()

    def __contains__(self, path: str) -> bool:
        """Whether a pattern matches the path."""
        self._seen.append(path)
        matching = [
            each for each, match in self._matchers.items() if match(path) is not None
        ]
        self._unused = [each for each in self._unused if each not in matching]
        return bool(matching)

    def check(self) -> None:
        """Raises a ValueError if a pattern matched none of the paths asked for."""
        if self._unused:
            near = [
                each
                for pattern in self._unused
                for each in difflib.get_close_matches(pattern, self._seen, 5, 0)
            ]
            known = ", ".join(dict.fromkeys(near)) or "none"
            raise ValueError(
                f"{', '.join(map(repr, self._unused))} matches no batch norm; the nearest "
                f"paths of batch norms are: {known}."
            )
