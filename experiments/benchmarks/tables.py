"""Tables of text, drawn from a result alone: on the terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import rich.table

ABSENT = "–"


class Table(NamedTuple):
    """Cells as they are shown; the first `labels` columns say what a row is of."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


def markdown(table: Table) -> str:
    """Without the title."""
    numbers = len(table.headings) - table.labels
    marks = ["---"] * table.labels + ["---:"] * numbers
    return "\n".join(
        f"| {' | '.join(each)} |" for each in (table.headings, marks, *table.rows)
    )


def terminal(table: Table) -> rich.table.Table:
    """As rich draws it, which is imported here: other tables do without it."""
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
    """Of an error: 5.1e-7, 0.51, 51 or NaN."""
    if np.isnan(value) or value == 0:
        return "NaN" if np.isnan(value) else "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = int(exponent)
    if -1 <= power <= 1:
        return f"{value:.{1 - power}f}"
    return f"{mantissa}e{power}"


def three_digits(value: Any) -> str:
    """Three digits, or a dash where there is no figure."""
    value = float(value)
    if np.isnan(value):
        return ABSENT
    digits = 2 - int(np.floor(np.log10(value))) if value > 0 else 0
    return f"{value:.{min(max(digits, 0), 3)}f}"
