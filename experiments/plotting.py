"""One style for all figures: colour-blind safe, readable at the size of a README."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's palette; an arm, or a library, has one colour in every figure.
COLOURS = {
    "plain": "#d55e00",
    "batch_norm": "#0072b2",
    "batch statistics": "#009e73",
    "EMA": "#d55e00",
    "EMA, debiased": "#e69f00",
    "EMA, warmed up": "#0072b2",
    "EMA, both": "#56b4e9",
    "cumulative": "#cc79a7",
    "population": "#999999",
    "calibrated": "#000000",
    "test batch": "#009e73",
    "float32": "#d55e00",
    "float32, folded": "#0072b2",
    "bfloat16": "#e69f00",
    "bfloat16, folded": "#56b4e9",
    "jaxnorm": "#0072b2",
    "flax": "#000000",
    "flax, two passes": "#d55e00",
    "haiku": "#e69f00",
    "equinox": "#cc79a7",
    "keras": "#56b4e9",
    "torch": "#009e73",
}

STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


@contextmanager
def figure(path: Path, rows: int, columns: int, *, height: float = 3.2) -> Iterator[Any]:
    """Axes to draw into, each row so high; the figure is written to `path` at the end."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots(rows, columns, squeeze=False)
        drawn.savefig(path, dpi=110)


def over_seeds(axes: Axes, x: Any, values: Any, *, arm: str, label: str):
    """The mean of (seeds, points) as a line, and its range over seeds as a band."""
    values = np.asarray(values, float)
    axes.plot(x, values.mean(0), color=COLOURS[arm], label=label)
    axes.fill_between(x, values.min(0), values.max(0), color=COLOURS[arm], alpha=0.2, lw=0)
