"""The figure: the errors of y and dx as the mean grows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.benchmarks.accuracy.tables import NAMES, TWO_PASSES
from experiments.harness import plotting

MARKERS = {
    "jaxnorm": "o",
    "flax": "v",
    TWO_PASSES: "P",
    "haiku": "s",
    "equinox": "^",
    "keras": "D",
    "torch": "X",
}


def draw(measurements: Mapping[str, Any], bounds: np.ndarray, path: Path) -> None:
    """Draws the float32 errors, and jaxnorm's bound over the errors of y."""
    table = measurements["float32"]
    with plotting.figure(path, rows=1, columns=2, height=4.2) as axes:
        for each, figure in zip(axes[0], ("y", "dx"), strict=True):
            _lines(each, table, figure)
        left, right = axes[0]
        left.plot(
            table["mean"], bounds, "--", color="grey", lw=1.5, label="bound of jaxnorm"
        )
        left.set(title="y", ylabel="largest error")
        right.set(title="dx", ylabel="largest error over largest |dx|")
        handles, labels = left.get_legend_handles_labels()
        left.figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _lines(axes: Axes, table: Mapping[str, Any], figure: str) -> None:
    """Draws a line per implementation; where many coincide, all remain visible."""
    present = [name for name in NAMES if name in table["implementations"]]
    for above, name in enumerate(present):
        errors = np.asarray(table["implementations"][name][figure], float)
        style: dict[str, Any] = {
            "marker": MARKERS[name],
            "markersize": 5 + 1.2 * above,
            "color": plotting.COLOURS[name],
            "zorder": 10 - above,
        }
        axes.plot(table["mean"], errors, lw=1.5, label=name, **style)
        _at_the_top(axes, table["mean"][np.isnan(errors)], style)
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)  # has room for 0
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * (top / bottom) ** 0.12)  # leaves room for NaN
    axes.set_xlabel("|μ|/σ of x, float32")
    axes.minorticks_off()


def _at_the_top(axes: Axes, means: np.ndarray, style: dict[str, Any]) -> None:
    """Marks means at which an error is not finite."""
    if len(means):
        height = axes.get_xaxis_transform()
        axes.plot(means, np.full(len(means), 0.95), ls="", transform=height, **style)
        axes.annotate(
            "NaN",
            (means[0], 0.95),
            xycoords=height,
            xytext=(-12, 0),
            textcoords="offset points",
            ha="right",
            va="center",
        )
