"""Verdicts on claims, from paired seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike
from rich.table import Table

from experiments.console import console


@dataclass(frozen=True)
class Verdict:
    """What a run says of a claim.

    Attributes:
      claim: what is claimed, with its threshold.
      rows: the rows of the table of claims that it belongs to.
      passed: True, False, or None where the run is too small to tell.
      evidence: the numbers.
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


def on_every_seed(
    claim: str, rows: tuple[int, ...], values: ArrayLike, holds: ArrayLike, unit: str
) -> Verdict:
    """Passes if the claim holds on every seed; one-sided sign test."""
    values, holds = np.asarray(values, float), np.asarray(holds, bool)
    p = scipy.stats.binomtest(int(holds.sum()), len(holds), 0.5, "greater").pvalue
    evidence = (
        f"{holds.sum()}/{len(holds)} seeds, {values.min():.2f} to {values.max():.2f} "
        f"{unit}, sign test p = {p:.3f}"
    )
    return Verdict(claim, rows, bool(holds.all()), evidence)


def above_zero(
    claim: str, rows: tuple[int, ...], differences: ArrayLike, unit: str
) -> Verdict:
    """Passes if the 95 % paired-t interval of the mean difference lies above 0."""
    differences = np.asarray(differences, float)
    mean = differences.mean()
    if len(differences) < 2:
        evidence = f"{mean:+.2f} {unit}; an interval needs two seeds"
        return Verdict(claim, rows, None, evidence)
    if np.ptp(differences) == 0:  # no spread: the interval is a point
        low = high = mean
    else:
        low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    evidence = f"{mean:+.2f} {unit}, 95 % interval {low:+.2f} to {high:+.2f}"
    return Verdict(claim, rows, bool(low > 0), evidence)


def mean_sd(values: ArrayLike, digits: int = 1) -> str:
    """The mean ± the sample standard deviation, over those values that are finite."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return "never"
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def show(table: Table, verdicts: Sequence[Verdict], folder: Path) -> None:
    """What an experiment ends with: its table, its verdicts and where the figure is."""
    console.print(table)
    for each in verdicts:
        rows = ", ".join(map(str, each.rows))
        console.print(f"{each.word}  {each.claim} (rows {rows})\n      {each.evidence}")
    console.print(f"figure: {folder / 'figure.png'}\nnumbers: {folder / 'result.json'}")
