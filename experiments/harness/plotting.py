"""One style for all figures: colour-blind safe and readable at the size of a README."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito's palette; an arm or library has the same colour in every figure.
COLOURS = {
    "plain": "#d55e00",
    "batch_norm": "#0072b2",
    "layer_norm": "#009e73",
    "group_norm": "#e69f00",
    "instance_norm": "#cc79a7",
    "batch_renorm": "#56b4e9",
    "ghosts of 16": "#009e73",
    "ghosts of 31": "#e69f00",
    "batch of 32": "#cc79a7",
    "dropout": "#009e73",
    "batch_norm, dropout": "#cc79a7",
    "L2": "#e69f00",
    "standardised input": "#009e73",
    "relu": "#000000",
    "skip": "#cc79a7",
    "sigmoid, dropout": "#e69f00",
    "batch statistics": "#009e73",
    "EMA": "#d55e00",
    "EMA, debiased": "#e69f00",
    "EMA, warmed up": "#0072b2",
    "EMA, both": "#56b4e9",
    "EMA .9": "#7a4a00",
    "EMA .999": "#8c1d40",
    "cumulative": "#cc79a7",
    "population": "#999999",
    "calibrated": "#000000",
    "test batch": "#009e73",
    "mean-normalised": "#e69f00",
    "standardised": "#009e73",
    "whitened": "#cc79a7",
    "linear": "#000000",
    "noisy": "#cc79a7",
    # An ordered series has one hue, from light to dark.
    "batch of 8": "#9ecae1",
    "batch of 16": "#4292c6",
    "batch of 64": "#2171b5",
    "batch of 256": "#08306b",
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
def figure(
    path: Path, rows: int, columns: int, *, height: float = 3.2, width: float = 4.6
) -> Iterator[Any]:
    """Yields axes, each of this height and width; writes to `path` at the end."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(width * columns, height * rows), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots(rows, columns, squeeze=False)
        drawn.savefig(path, dpi=110)
    # A palette takes a third of the space, which a repository stores for good.
    with Image.open(path) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def over_seeds(
    axes: Axes, x: Any, values: Any, *, arm: str, label: str, **line: Any
) -> None:
    """Draws the mean of (seeds, points) as a line and the range over seeds as a band.

    Seeds that diverged are left out; where all diverged, there is a gap.
    """
    finite = np.ma.masked_invalid(np.asarray(values, float))
    low, middle, high = (
        of(axis=0).filled(np.nan) for of in (finite.min, finite.mean, finite.max)
    )
    axes.plot(x, middle, color=COLOURS[arm], label=label, **line)
    axes.fill_between(x, low, high, color=COLOURS[arm], alpha=0.2, lw=0)


def each_seed(axes: Axes, values: dict[str, Any], colours: dict[str, str]) -> None:
    """Draws a row for each name: a dot per seed, and a bar at the mean.

    Args:
      axes: the axes to draw into, with the values along x.
      values: the values (seeds,) for each name.
      colours: a name in `COLOURS` for each name.
    """
    for place, (name, of_seeds) in enumerate(values.items()):
        finite = np.asarray(of_seeds, float)
        finite = finite[np.isfinite(finite)]
        colour = COLOURS[colours[name]]
        axes.plot(finite, [place] * len(finite), "o", color=colour, ms=5, alpha=0.6)
        if len(finite):
            axes.plot(finite.mean(), place, "|", color=colour, ms=16, mew=2.5)
    axes.set_yticks(range(len(values)), list(values))
    for name, label in zip(values, axes.get_yticklabels(), strict=True):
        label.set_color(COLOURS[colours[name]])  # also the legend of the panels beside it
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def threshold(axes: Axes, *, y: float | None = None, x: float | None = None) -> None:
    """Draws a dotted line at a value that a claim names."""
    style: Any = {"color": "grey", "lw": 1.2, "ls": ":", "zorder": 0}
    if y is not None:
        axes.axhline(y, **style)
    if x is not None:
        axes.axvline(x, **style)


def diverged(axes: Axes, x: Any, values: Any, *, arm: str) -> None:
    """Draws a cross at the bottom for each x at which a seed of (seeds, points) is NaN."""
    lost = np.asarray(x, float)[np.isnan(np.asarray(values, float)).any(axis=0)]
    at = np.full(len(lost), 0.02)
    axes.plot(
        *(lost, at, "x"), color=COLOURS[arm], transform=axes.get_xaxis_transform(), ms=8
    )


def seeds(values: Any) -> str:
    """Returns an axis label for the mean and range of values of shape (seeds, …)."""
    number = len(values)
    return f"mean and range of {number} seed{'s' * (number > 1)}"
