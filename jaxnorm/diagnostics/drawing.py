"""Draws a report: a row for each norm, a panel for each kind of figure."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnorm.diagnostics.faults import Diagnosis
from jaxnorm.diagnostics.metrics import FAR, LOG_FAR, NormMetrics, Values
from jaxnorm.diagnostics.thresholds import LEAST_COUNT

# From Okabe & Ito's palette, which colour-blind readers can distinguish.
WELL, ILL, LIMIT = "#0072b2", "#d55e00", "#999999"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
MOST = 200  # points drawn per norm


def draw(norms: Sequence[NormMetrics], diagnoses: Sequence[Diagnosis]) -> Figure:
    """Draws four panels, with the norms from top to bottom in the order of their calls."""
    faults = {
        norm.name: [d.fault for d in diagnoses if d.norm == norm.name] for norm in norms
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 1.9 + 0.55 * len(norms)), layout="constrained")
        FigureCanvasAgg(figure)
        means, variances, counts, outputs = figure.subplots(1, 4, sharey=True)
        for place, norm in enumerate(norms):
            colour = ILL if faults[norm.name] else WELL
            _points(means, place, norm.distance, colour)
            _points(variances, place, norm.log_ratio, colour)
            counts.plot([max(norm.count, 0.5)], [place], "s", color=colour, ms=7)
            _points(outputs, place, norm.spread, colour)
        _limits(means, -FAR, FAR)
        _limits(variances, -LOG_FAR, LOG_FAR)
        _limits(counts, LEAST_COUNT)
        _limits(outputs, 1.0)
        means.set(title="Running − batch mean", xlabel="σ of the batch")
        variances.set(title="Running/batch variance", xlabel="log of the ratio")
        counts.set(title="Samples per mean", xlabel="count", xscale="log")
        counts.set_xlim(1, 10 * max([LEAST_COUNT, *(norm.count for norm in norms)]))
        outputs.set(title="Output in evaluation", xlabel="std. deviation/|γ|", xscale="log")
        _name(means, norms)
        _say(outputs, [", ".join(faults[norm.name]) for norm in norms])
    return figure


def _points(axes: Any, place: int, values: Values | None, colour: str) -> None:
    """Draws the features, or some of them, slightly spread, and the median as a bar."""
    if values is None or not (finite := values[np.isfinite(values)]).size:
        axes.text(0.5, place, "–", color=LIMIT, transform=axes.get_yaxis_transform())
        return
    shown = np.sort(finite)[:: -(-finite.size // MOST)]
    offsets = 0.22 * np.sin(2.4 * np.arange(shown.size))
    axes.plot(shown, place + offsets, "o", color=colour, ms=3.5, alpha=0.5, mew=0)
    axes.plot([np.median(finite)], [place], "|", color=colour, ms=20, mew=2.5)


def _limits(axes: Any, *at: float) -> None:
    for each in at:
        axes.axvline(each, color=LIMIT, lw=1, ls="--", zorder=0)


def _name(axes: Any, norms: Sequence[NormMetrics]) -> None:
    """Names the norms, from top to bottom."""
    axes.set_yticks(range(len(norms)), [norm.name for norm in norms])
    axes.set_ylim(len(norms) - 0.5, -0.5)


def _say(axes: Any, words: Sequence[str]) -> None:
    """Writes what is wrong with each norm to its right."""
    for place, each in enumerate(words):
        axes.annotate(
            "\n".join(textwrap.wrap(each, 22)) or "nothing found",
            (1.04, place),
            xycoords=axes.get_yaxis_transform(),
            color=ILL if each else WELL,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
