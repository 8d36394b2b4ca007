"""Verdicts on claims, from paired seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import rich.box
import scipy.stats
from numpy.typing import ArrayLike
from rich.console import RenderableType
from rich.table import Table

from experiments.harness.console import console
from experiments.harness.runs import Run


@dataclass(frozen=True)
class Verdict:
    """What a run says about a claim.

    Attributes:
      claim: the claim, with its threshold.
      rows: the rows in the table of claims that it belongs to, if any.
      passed: True, False, or None if the run is too small to tell.
      evidence: the numbers behind the verdict.
    """

    claim: str
    rows: tuple[int, ...]
    passed: bool | None
    evidence: str

    @property
    def word(self) -> str:
        return {True: "PASS", False: "FAIL", None: "OPEN"}[self.passed]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"rows": list(self.rows)}


SIGNIFICANCE = 0.05


def on_every_seed(
    claim: str, rows: tuple[int, ...], values: ArrayLike, holds: ArrayLike, unit: str
) -> Verdict:
    """Passes if the claim holds on every seed and a sign test finds enough seeds."""
    values, holds = np.asarray(values, float), np.asarray(holds, bool)
    if not np.isfinite(values).all():
        return _undefined(claim, rows, values, unit)
    p = scipy.stats.binomtest(int(holds.sum()), len(holds), 0.5, "greater").pvalue
    evidence = (
        f"{holds.sum()}/{len(holds)} seeds, {_short(values.min())} to "
        f"{_short(values.max())} "
        f"{unit}, sign test p = {p:.3f}"
    )
    if holds.all() and p > SIGNIFICANCE:
        return Verdict(claim, rows, None, f"{evidence}; it needs five seeds to tell")
    return Verdict(claim, rows, bool(holds.all()), evidence)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.1e}"


def above_zero(
    claim: str, rows: tuple[int, ...], differences: ArrayLike, unit: str
) -> Verdict:
    """Passes if the 95 % paired-t interval of the mean difference lies above 0."""
    differences = np.asarray(differences, float)
    if not np.isfinite(differences).all():
        return _undefined(claim, rows, differences, unit)
    mean = differences.mean()
    if len(differences) < 2:
        evidence = f"{mean:+.2f} {unit}; an interval needs two seeds"
        return Verdict(claim, rows, None, evidence)
    if np.ptp(differences) == 0:  # no spread: the interval is a point
        low = high = mean
    else:
        low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(
            1 - SIGNIFICANCE
        )
    evidence = f"{mean:+.2f} {unit}, 95 % interval {low:+.2f} to {high:+.2f}"
    return Verdict(claim, rows, bool(low > 0), evidence)


def _undefined(claim: str, rows: tuple[int, ...], values: np.ndarray, unit: str) -> Verdict:
    defined = int(np.isfinite(values).sum())
    evidence = f"only {defined}/{len(values)} seeds give a finite number of {unit}"
    return Verdict(claim, rows, None, evidence)


def mean_sd(values: ArrayLike) -> str:
    """Formats the mean ± the sample standard deviation (omitted for a single value).

    Only finite values count; if some seeds diverged, their number is shown, too.
    """
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "diverged"
    spread = f" ± {finite.std(ddof=1):.1f}" if len(finite) > 1 else ""
    rest = f" ({len(finite)}/{len(values)})" if len(finite) < len(values) else ""
    return f"{finite.mean():.1f}{spread}{rest}"


def make_table(*headings: str, title: str) -> Table:
    """Returns an empty table in the common style."""
    return Table(*headings, title=title, title_justify="left", box=rich.box.SIMPLE)


def cells(table: Table) -> dict[str, Any]:
    """Returns a table as it is stored: title, headings and rows."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return {
        "title": str(table.title),
        "headings": [str(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def show(table: RenderableType, verdicts: Sequence[Verdict], run: Run) -> None:
    """Prints the table, the verdicts and the paths of figure and numbers."""
    console.print(table)
    for each in verdicts:
        rows = f" (rows {', '.join(map(str, each.rows))})" if each.rows else ""
        console.print(f"{each.word}  {each.claim}{rows}\n      {each.evidence}")
    for note in run.notes:
        console.print(note)
    console.print(f"figure: {run.figure}\nnumbers: {run.result}")
