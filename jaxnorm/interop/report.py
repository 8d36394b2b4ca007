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


def check_no_problems(problems: list[str]) -> None:
    """Raises one ValueError that lists them all."""
    if problems:
        number = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        listed = "".join(f"\n- {each}" for each in problems)
        raise ValueError(f"{number}, so nothing was converted:{listed}")
