"""The figure: passes over flax's, for each op, dtype and platform."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.benchmarks.compiled.tables import LIBRARIES, MACHINES, passes
from experiments.harness import plotting

TITLES = {"fwd": "forward", "both": "forward + backward", "bwd": "backward"}
COLOURS = {"fwd": "#56b4e9", "both": "#0072b2", "bwd": "#e69f00"}
Panels = Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]
HEIGHT = 0.25  # of a bar, in units of the distance between ops
SHORTEST, LONGEST = 2.0, 6.0  # limits of the axis; a longer bar is cut and labelled


def draw(measurements: Mapping[str, Any], path: Path) -> None:
    """Draws a panel per platform and dtype; bars left of 1 are fewer passes than flax's."""
    panels = ratios(measurements)
    dtypes = list(dict.fromkeys(dtype for _, dtype in panels))
    platforms = list(dict.fromkeys(platform for platform, _ in panels))
    rows = max(map(len, panels.values()))
    end = _end(panels)
    height = max(0.42 * rows + 0.9, 2.5)
    with plotting.figure(
        path, rows=len(platforms), columns=len(dtypes), height=height
    ) as axes:
        for (platform, dtype), panel in panels.items():
            each = axes[platforms.index(platform), dtypes.index(dtype)]
            _bars(each, panel, end)
            each.set_title(f"{MACHINES[platform]}, {dtype}", fontsize=11)
        for each in axes[:, 1:].flat:
            each.set_yticklabels([])
        for each in axes[-1]:
            each.set_xlabel("passes over flax's\n(left is fewer)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=4)


def ratios(measurements: Mapping[str, Any]) -> Panels:
    """Returns the ratio of each program, by platform and dtype, then by op and shape."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for platform, ops in measurements.get("passes", {}).items():
        for op, shapes in ops.items():
            for shape, dtypes in shapes.items():
                for dtype, libraries in dtypes.items():
                    if all(name in libraries for name in LIBRARIES):
                        panel = found.setdefault((platform, dtype), {})
                        panel[f"{op} {shape}"] = _ratio(libraries)
    return found


def _ratio(libraries: Mapping[str, Any]) -> dict[str, float]:
    ours, flax = (libraries[name] for name in LIBRARIES)
    return {
        name: passes(ours, name) / passes(flax, name) for name in TITLES if name in ours
    }


def _end(panels: Panels) -> float:
    """Returns the end of the axis, shared by all panels."""
    ratios = [
        value
        for panel in panels.values()
        for programs in panel.values()
        for value in programs.values()
    ]
    return float(np.clip(max(ratios) * 1.05, SHORTEST, LONGEST))


def _bars(axes: Axes, panel: Mapping[str, Mapping[str, float]], end: float) -> None:
    places = np.arange(len(panel))
    names = list(next(iter(panel.values())))
    for row, name in enumerate(names):
        values = np.array([each[name] for each in panel.values()])
        at = places + HEIGHT * (row - (len(names) - 1) / 2)
        shown = np.minimum(values, end)
        axes.barh(at, shown, HEIGHT, color=COLOURS[name], label=TITLES[name], zorder=2)
        for place, value in zip(at, values, strict=True):
            if value > end:
                axes.text(end, place, f" {value:.1f}", va="center", fontsize=8)
    axes.axvline(1, color=plotting.COLOURS["flax"], lw=1.2, label="flax", zorder=3)
    axes.set_yticks(places, [label.replace(" ", "\n") for label in panel], fontsize=8)
    axes.set_ylim(len(panel) - 0.5, -0.5)
    axes.set_xlim(0, end)
    axes.grid(axis="y", visible=False)
