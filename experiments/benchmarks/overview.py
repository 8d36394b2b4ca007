"""All ops in one table, with a row per op and dtype, computed from a result alone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.comparison import (
    KEPT,
    OURS,
    RATIOS,
    Figures,
    geometric_mean,
    ratio,
)
from experiments.benchmarks.tables import Table, three_digits

TITLE = (
    "all ops, fwd+bwd and fwd alone; ÷: our time over that of the other, the geometric "
    "mean over the shapes or the most; kept: for backward, in sizes of x, the most"
)
FORWARD, BOTH = ("fwd ", "train-forward"), ("", "forward-backward")
MEAN, MOST = "", ", most"
COLUMNS = (
    (*BOTH, "flax", MEAN),
    (*BOTH, "JAX", MEAN),
    (*BOTH, "JAX", MOST),
    (*BOTH, "torch", MEAN),
    (*FORWARD, "flax", MEAN),
    (*FORWARD, "flax", MOST),
    (*FORWARD, "torch", MEAN),
)
KEEPERS = {"kept": OURS, "kept, flax": "flax"}


def overview(measurements: Mapping[str, Any]) -> Iterator[Table]:
    """Yields one table if there are several ops; one op's own table ends with its means."""
    if len(measurements) > 1:
        headings = [f"{label}÷ {name}{which}" for label, _, name, which in COLUMNS]
        rows = [
            (op, dtype, *_row(list(shapes.values())))
            for op, dtypes in measurements.items()
            for dtype, shapes in dtypes.items()
        ]
        yield Table(TITLE, ("op", "x", *headings, *KEEPERS), rows, labels=2)


def _row(shapes: list[Mapping[str, Figures]]) -> Iterator[str]:
    for _, mode, name, which in COLUMNS:
        figures = (modes[mode] for modes in shapes if mode in modes)
        ratios = [ratio(each, RATIOS[name]) for each in figures]
        yield three_digits(geometric_mean(ratios) if which == MEAN else _most(ratios))
    most = KEPT.most(modes[KEPT.mode] for modes in shapes if KEPT.mode in modes)
    yield from (most.get(name, three_digits(np.nan)) for name in KEEPERS.values())


def _most(ratios: Iterable[float]) -> float:
    """Returns the largest finite ratio; NaN if there is none."""
    return max((each for each in ratios if np.isfinite(each)), default=np.nan)
