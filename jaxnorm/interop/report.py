"""What a conversion did with each array, and a single error for all its problems."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Entry:
    """What became of one array.

    Attributes:
      source: its name in the other library; None if it has none.
      target: its path here; None if it has none.
      rule: how one is made from the other.
    """

    source: str | None
    target: str | None
    rule: str

    def __str__(self) -> str:
        return f"{self.source or '—'} → {self.target or '—'}: {self.rule}"


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, with an entry for each array on either side.

    >>> print(ConversionReport((Entry("fc.bias", "params/fc/bias", "as it is"),)))
    fc.bias → params/fc/bias: as it is
    """

    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


class Conversion(NamedTuple):
    """Converted arrays, and a report.

    Attributes:
      arrays: the arrays of one side, made from those of the other.
      report: what was done with each.
    """

    arrays: Any
    report: ConversionReport


# For each kind of problem, a description and how to fix it.
MENDS = {
    "left over": "without a counterpart here; map its module to a path in names, or to "
    "None to leave it out, or create the layer here with it",
    "missing": "without an array in the other library; map its module in names, or list "
    "its path in keep, or create the layer here without it",
    "mis-shaped": "with another shape than here; create the layer here with the same "
    "shape, or give its layout in rules",
    "twice": "mapped to the same place; map each to its own in names, or one to None",
    "wrapped": "names that a wrapper precedes, such as torch's DataParallel, Lightning or "
    "torch.compile; begin the patterns in names and rules with it",
    "dtype": "of another kind or too precise; convert it first, or round it with cast=True",
    "counts": "of batches, of which torch keeps one number for a norm, and keras none; set "
    "updates to one number, add num_batches_tracked to the state, or list the path in keep",
    "unused": "patterns that match nothing; correct or remove them",
}


MOST_LISTED = 50  # of each kind; an array of another model has one line each


def _listed(lines: list[str]) -> str:
    shown = "".join(f"\n- {line}" for line in lines[:MOST_LISTED])
    more = len(lines) - MOST_LISTED
    return f"{shown}\n- and {more} more" if more > 0 else shown


class Problems:
    """The problems of a conversion, by kind."""

    def __init__(self):
        self._found: dict[str, list[str]] = {kind: [] for kind in MENDS}

    def add(self, kind: str, line: str) -> None:
        """Adds a problem of a kind in MENDS."""
        self._found[kind].append(line)

    def check(self) -> None:
        """Raises one ValueError that lists all problems, if there are any."""
        found = {kind: lines for kind, lines in self._found.items() if lines}
        if found:
            number = sum(map(len, found.values()))
            listed = "".join(
                f"\n{kind}, {MENDS[kind]}:" + _listed(lines)
                for kind, lines in found.items()
            )
            raise ValueError(
                f"nothing was converted: {number} array{'s' * (number > 1)} or "
                f"pattern{'s' * (number > 1)} did not match.{listed}"
            )
