"""The report of the benchmarks: a line per case, then tables and a summary."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import rich.box
from rich.table import Table

from experiments import benchmarks
from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import (
    BESIDE,
    FIGURES,
    IMPLEMENTATIONS,
    OURS,
    PEERS,
    RATIOS,
    STEP,
    Figures,
    geometric_mean,
    labels,
    ratio,
)
from experiments.benchmarks.ops import OPS
from experiments.benchmarks.overview import overview
from experiments.benchmarks.tables import terminal, three_digits
from experiments.harness.console import console

DESCRIPTION = benchmarks.__doc__ or ""

HEADING = f"{'':<44} {'jaxnorm, ms':>11} {'÷ flax':>7} {'÷ best':>7}"


def line(case: Case, figures: np.ndarray) -> str:
    """Returns the line of a case, below the heading."""
    named = {
        name: dict(zip(FIGURES, row, strict=True))
        for name, row in zip(IMPLEMENTATIONS, figures, strict=True)
    }
    what = f"{case.op} {case.dtype} {case.size} {label(case)}"
    ratios = (three_digits(ratio(named, each)) for each in (("flax",), PEERS))
    return f"{what:<44} {three_digits(named[OURS]['milliseconds']):>11} " + " ".join(
        f"{each:>7}" for each in ratios
    )


def label(case: Case) -> str:
    """Returns the name of the case's mode in tables."""
    return labels((*OPS[case.op].passes, STEP))[case.mode]


def of(results: dict[str, Any], case: Case) -> Figures:
    """Returns the figures of a case."""
    return results[case.op][case.dtype][case.size][case.mode]


def times(cases: Sequence[Case], results: dict[str, Any], title: str) -> Table:
    """For one op and dtype: milliseconds, and jaxnorm's time over the others' times."""
    headings = (*IMPLEMENTATIONS, *(f"÷{name}" for name in RATIOS))
    table = _table(title, "", *headings)
    previous = None
    for case in cases:
        if case.shape != previous:
            table.add_section()
            table.add_row(f"{case.size}")
            previous = case.shape
        figures = of(results, case)
        table.add_row(
            f" {label(case)}",
            *(
                three_digits(figures.get(name, {}).get("milliseconds", np.nan))
                for name in IMPLEMENTATIONS
            ),
            *(three_digits(ratio(figures, others)) for others in RATIOS.values()),
        )
    return table


def summary(cases: Sequence[Case], results: dict[str, Any], title: str) -> Table:
    """For one op and dtype: geometric means over shapes, for each mode."""
    table = _table(title, "", *(f"÷{name}" for name in RATIOS), "share", "flax's share")
    for mode in dict.fromkeys(map(label, cases)):
        all_figures = [of(results, case) for case in cases if label(case) == mode]

        def share(name: str, all_figures=all_figures) -> Iterable[float]:
            return (each.get(name, {}).get("copy_share", np.nan) for each in all_figures)

        table.add_row(
            mode,
            *(
                three_digits(geometric_mean(ratio(each, others) for each in all_figures))
                for others in RATIOS.values()
            ),
            *(three_digits(geometric_mean(share(name))) for name in (OURS, "flax")),
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, padding=0)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def beside_time(cases: Sequence[Case], results: dict[str, Any]) -> Iterable[str]:
    """Yields a line for each figure beside the times, with its maximum over the shapes."""
    for asked in BESIDE:
        found = asked.most(of(results, case) for case in cases if case.mode == asked.mode)
        if found:
            each = ", ".join(f"{name} {value}" for name, value in found.items())
            yield f"{asked.label}: {each}"


def groups(cases: Sequence[Case]) -> dict[tuple[str, str], list[Case]]:
    """Groups the cases by op and dtype."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        found.setdefault((case.op, case.dtype), []).append(case)
    return found


def show(cases: Sequence[Case], results: dict[str, Any]) -> None:
    """Prints times and other figures for each op and dtype, and at last all ops."""
    for (op, dtype), group in groups(cases).items():
        console.print(
            times(
                group,
                results,
                f"{op}, {dtype}, ms; ÷ is our time over flax's, the best JAX peer's, "
                "torch's",
            )
        )
        console.print(
            summary(
                group,
                results,
                "geometric means over shapes; share: minimal bytes over time, of the copy",
            )
        )
        console.print("maximum over the shapes:")
        for text in beside_time(group, results):
            console.print(f"  {text}")
        console.print()
    ordered: dict[str, Any] = {}
    for op, dtype in groups(cases):
        ordered.setdefault(op, {})[dtype] = results[op][dtype]
    for table in overview(ordered):
        console.print(terminal(table))
