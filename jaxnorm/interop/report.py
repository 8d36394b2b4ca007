"""What a conversion did with each array, and the one error for all that it could not do."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Entry:
    """What became of one array.

    Attributes:
      source: its name in the other library; None where it has none there.
      target: its path here; None where there is no place for it.
      rule: how the one is made of the other.
    """

    source: str | None
    target: str | None
    rule: str

    def __str__(self) -> str:
        return f"{self.source or '—'} → {self.target or '—'}: {self.rule}"


@dataclass(frozen=True)
class Report:
    """What a conversion did, an entry for each array on either side.

    >>> print(Report((Entry("fc.bias", "params/fc/bias", "as it is"),)))
    fc.bias → params/fc/bias: as it is
    """

    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


class Conversion(NamedTuple):
    """Arrays converted, and how.

    Attributes:
      arrays: of the one side, made of those of the other.
      report: what was done with each.
    """

    arrays: Any
    report: Report


# By their kinds, what all of a kind have in common, and how to mend it.
MENDS = {
    "left over": "without a place here; name that of the module in names, or None there to "
    "leave it out, or make the layer here with it",
    "missing": "without an array there; say in names which module it is of, or name its "
    "path in keep, or make the layer here without it",
    "mis-shaped": "of another shape than here; make the layer here as it is there, or say "
    "in rules how it lies",
    "twice": "for one place; give each its own in names, or None to one of them",
    "dtype": "of another kind, or too fine; convert it before, or round it by cast=True",
    "counts": "of batches, of which there is one there; set updates to one number",
    "unused": "patterns that fit nothing; correct them, or take them out",
}


class Problems:
    """All that a conversion could not do, by kind."""

    def __init__(self):
        self._found: dict[str, list[str]] = {kind: [] for kind in MENDS}

    def add(self, kind: str, line: str) -> None:
        """One more of a kind in MENDS."""
        self._found[kind].append(line)

    def check(self) -> None:
        """Raises one ValueError that lists them all, if there are any."""
        found = {kind: lines for kind, lines in self._found.items() if lines}
        if found:
            number = sum(map(len, found.values()))
            listed = "".join(
                f"\n{kind}, {MENDS[kind]}:" + "".join(f"\n- {line}" for line in lines)
                for kind, lines in found.items()
            )
            raise ValueError(
                f"nothing was converted, for {number} array{'s' * (number > 1)} or "
                f"pattern{'s' * (number > 1)} did not fit.{listed}"
            )
