"""Text tables, drawn from a result alone, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import rich.table

ABSENT = "–"


class Table(NamedTuple):
    """Cells as they are shown; the first `labels` columns identify a row."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


def markdown(table: Table) -> str:
    """Returns the table in markdown, without the title."""
    numbers = len(table.headings) - table.labels
    marks = ["---"] * table.labels + ["---:"] * numbers
    return "\n".join(
        f"| {' | '.join(each)} |" for each in (table.headings, marks, *table.rows)
    )


def terminal(table: Table) -> rich.table.Table:
    """Returns a rich table; rich is imported here because other tables do not need it."""
    import rich.box
    import rich.table

    drawn = rich.table.Table(
        title=table.title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=0
    )
    for column, heading in enumerate(table.headings):
        is_label = column < table.labels
        justify = "left" if is_label else "right"
        drawn.add_column(heading, justify=justify, no_wrap=is_label)
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def two_digits(value: float) -> str:
    """Formats an error: 5.1e-7, 0.51, 51 or NaN."""
    if np.isnan(value) or value == 0:
        return "NaN" if np.isnan(value) else "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = int(exponent)
    if -1 <= power <= 1:
        return f"{value:.{1 - power}f}"
    return f"{mantissa}e{power}"


def three_digits(value: Any) -> str:
    """Formats three digits, or a dash if there is no figure."""
    value = float(value)
    if np.isnan(value):
        return ABSENT
    digits = 2 - int(np.floor(np.log10(value))) if value > 0 else 0
    return f"{value:.{min(max(digits, 0), 3)}f}"
