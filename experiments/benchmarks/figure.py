"""The figure: times over flax's, for each shape."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import Figures
from experiments.benchmarks.report import of
from experiments.harness import plotting

MARKERS = {
    "jaxnorm": "o",
    "haiku": "s",
    "equinox": "^",
    "keras": "D",
    "torch": "X",
}

TITLES = {"train-forward": "forward", "forward-backward": "forward + backward"}
Panels = Mapping[str, Mapping[tuple[str, str], Sequence[Case]]]


def panels(cases: Sequence[Case]) -> Panels:
    """Returns the cases of each op, then of each dtype and mode; one panel each.

    The modes are forward and forward-backward, or any others if both are missing.
    """
    modes = list(dict.fromkeys(case.mode for case in cases))
    columns = [
        (dtype, mode)
        for dtype in dict.fromkeys(case.dtype for case in cases)
        for mode in ([mode for mode in TITLES if mode in modes] or modes)
    ]
    return {
        op: {
            column: [
                case for case in cases if (case.op, case.dtype, case.mode) == (op, *column)
            ]
            for column in columns
        }
        for op in dict.fromkeys(case.op for case in cases)
    }


def draw(cases: Sequence[Case], results: dict[str, Any], path: Path) -> None:
    """Draws each implementation's time over flax's, for each shape."""
    rows = panels(cases)
    columns = list(next(iter(rows.values())))
    sizes = {op: _sizes(row.values()) for op, row in rows.items()}
    with plotting.figure(path, rows=len(rows), columns=len(columns)) as axes:
        _fit(axes, [len(each) for each in sizes.values()])
        for column, (dtype, mode) in zip(axes.T, columns, strict=True):
            shown = [row[dtype, mode] for row in rows.values()]
            for each, group, op in zip(column, shown, rows, strict=True):
                _dots(each, group, sizes[op], results)
            _scale(column, [case for group in shown for case in group], results)
            column[0].set_title(f"{TITLES.get(mode, mode)},\n{dtype}", fontsize=11)
        for op, each in zip(rows, axes[:, 0], strict=True):
            each.set_ylabel(op.replace("_", "\n"))
        for each in axes[:, 1:].flat:
            each.set_yticklabels([])
        for each in axes[:-1].flat:
            each.set_xticklabels([])
        for each in axes[-1]:
            each.set_xlabel("time over flax's\n(left is faster)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=6)


def _sizes(row: Iterable[Sequence[Case]]) -> list[str]:
    """Returns the shapes in all panels of an op."""
    return list(dict.fromkeys(case.size for group in row for case in group))


def _fit(axes: np.ndarray, lines: Sequence[int]) -> None:
    """Makes the figure as wide as a page, and each row as high as its shapes need."""
    heights = [0.45 * number + 0.3 for number in lines]
    axes[0, 0].get_gridspec().set_height_ratios(heights)
    width = max(2.5 * axes.shape[1] + 1.2, 7)
    axes[0, 0].figure.set_size_inches(width, sum(heights) + 1.4)


def _dots(
    axes: Any, cases: Sequence[Case], sizes: Sequence[str], results: dict[str, Any]
) -> None:
    positions = np.array([len(sizes) - 1 - sizes.index(case.size) for case in cases])
    axes.axvline(1, color="black", lw=1, label="flax")
    for row, (name, marker) in enumerate(MARKERS.items()):
        axes.plot(
            [_over_flax(of(results, case), name) for case in cases],
            positions + 0.13 * (len(MARKERS) // 2 - row),  # each below the one before
            marker,
            color=plotting.COLOURS[name],
            markersize=6 if len(sizes) < 8 else 4,
            label=name,
        )
    axes.set_yticks(np.arange(len(sizes))[::-1], sizes)
    axes.set_ylim(-0.6, len(sizes) - 0.4)


def _scale(column: Iterable[Any], cases: Sequence[Case], results: dict[str, Any]) -> None:
    """Sets one scale for all ops, which shows at least half and twice flax's time."""
    ratios = [_over_flax(of(results, case), name) for case in cases for name in MARKERS]
    ratios = [0.5, 2.0, *(each for each in ratios if np.isfinite(each))]
    low, high = min(ratios), max(ratios)
    base = 2.0 if high / low < 2**5 else 4.0  # so that labels do not touch
    ticks = [tick for tick in base ** np.arange(-5, 6) if low <= tick <= high]
    for axes in column:
        axes.set(xscale="log", xlim=(low / 1.2, high * 1.2))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def _over_flax(figures: Figures, name: str) -> float:
    times = (
        float(figures.get(each, {}).get("milliseconds", np.nan)) for each in (name, "flax")
    )
    return next(times) / next(times)
