"""The figure: times over flax's, for each shape."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plotting
from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import Figures
from experiments.benchmarks.report import groups, of

MARKERS = {
    "jaxnorm": "o",
    "haiku": "s",
    "equinox": "^",
    "keras": "D",
    "torch": "X",
}


TITLES = {"train-forward": "forward", "forward-backward": "forward + backward"}


def panels(cases: Sequence[Case]) -> list[str]:
    """The modes that the figure shows: forward and both ways, or what there is."""
    modes = list(dict.fromkeys(case.mode for case in cases))
    chosen = [mode for mode in TITLES if mode in modes]
    return chosen or modes


def draw(cases: Sequence[Case], results: dict[str, Any], path: Path) -> None:
    """The time of each implementation over that of flax, for each shape."""
    modes, rows = panels(cases), groups(cases)
    with plotting.figure(path, rows=len(rows), columns=len(modes)) as axes:
        for row, ((op, dtype), group) in zip(axes, rows.items(), strict=True):
            for each, mode in zip(row, modes, strict=True):
                _dots(each, [case for case in group if case.mode == mode], results)
                each.set_title(f"{TITLES.get(mode, mode)}, {dtype}", fontsize=11)
            row[0].set_ylabel(op)
            for each in row[1:]:
                each.set_yticklabels([])
        for each in axes[-1]:
            each.set_xlabel("time over flax's (left is faster)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=6)


def _dots(axes: Any, cases: Sequence[Case], results: dict[str, Any]) -> None:
    positions = np.arange(len(cases))[::-1]
    axes.axvline(1, color="black", lw=1, label="flax")
    drawn = [0.5, 2.0]  # at least this much is seen
    for row, (name, marker) in enumerate(MARKERS.items()):
        ratios = [_over_flax(of(results, case), name) for case in cases]
        drawn += [each for each in ratios if np.isfinite(each)]
        axes.plot(
            ratios,
            positions + 0.13 * (len(MARKERS) // 2 - row),  # each below the one before
            marker,
            color=plotting.COLOURS[name],
            markersize=7 if len(cases) < 8 else 5,
            label=name,
        )
    axes.set(xscale="log", yticks=positions, yticklabels=[case.size for case in cases])
    axes.set(xlim=(min(drawn) / 1.2, max(drawn) * 1.2), ylim=(-0.6, len(cases) - 0.4))
    ticks = [tick for tick in 2.0 ** np.arange(-6, 7) if min(drawn) <= tick <= max(drawn)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _over_flax(figures: Figures, name: str) -> float:
    times = (
        float(figures.get(each, {}).get("milliseconds", np.nan)) for each in (name, "flax")
    )
    return next(times) / next(times)
