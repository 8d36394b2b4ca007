"""The axes over which each norm averages, as drawn by Wu & He (1803.08494)."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

SAMPLES, POSITIONS, CHANNELS, GROUPS = 4, 5, 6, 2
DEPTH = np.array([0.5, 0.36])  # offset of a sample from the one before, right and up
EDGES: dict[str, Any] = {"edgecolors": "#444444", "linewidths": 0.8}


def alike(norm: str) -> np.ndarray:
    """Marks the elements that share a mean with the last channel of the first sample.

    Has the shape (samples, positions, channels); a position is a pair of H and W.
    """
    sample, _, channel = np.indices((SAMPLES, POSITIONS, CHANNELS))
    first, last = sample == 0, channel == CHANNELS - 1
    last_group = channel >= CHANNELS - CHANNELS // GROUPS
    return {
        "batch_norm": last,
        "layer_norm": first,
        "instance_norm": first & last,
        "group_norm": first & last_group,
    }[norm]


def draw_axes(axes: Axes, norms: dict[str, str], colours: dict[str, str]) -> None:
    """Draws a cube for each norm, side by side.

    Args:
      axes: the axes, filled completely.
      norms: the text below the cube of each norm.
      colours: the colour of each norm.
    """
    for place, (norm, text) in enumerate(norms.items()):
        left = place * (CHANNELS + 5.0)
        draw_cube(axes, left, alike(norm), colours[norm])
        axes.text(left + CHANNELS / 2, -2.0, text, ha="center", va="top", fontsize=11)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_ylim(-4.1, POSITIONS + SAMPLES * DEPTH[1] + 0.3)
    axes.set_xlim(-1.8, (len(norms) - 1) * (CHANNELS + 5.0) + CHANNELS + 3.2)


def draw_cube(axes: Axes, left: float, coloured: np.ndarray, colour: str) -> None:
    """Draws the three visible sides: channels to the right, positions up, samples back."""
    across, up = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    origin = np.array([left, 0.0])
    right, top = origin + CHANNELS * across, origin + POSITIONS * up
    for corner, rows, columns, cells in (
        (origin, up, across, coloured[0]),
        (top, DEPTH, across, coloured[:, -1]),
        (right, up, DEPTH, coloured[:, :, -1].T),
    ):
        quads = [
            [corner + r * rows + c * columns for r, c in _corners(row, column)]
            for row, column in np.ndindex(cells.shape)
        ]
        faces = [colour if each else "white" for each in cells.flat]
        axes.add_collection(PolyCollection(quads, facecolors=faces, **EDGES))
    style: Any = {"fontsize": 11, "ha": "center", "va": "center"}
    axes.text(left + CHANNELS / 2, -0.8, "C", **style)
    axes.text(left - 0.9, POSITIONS / 2, "H, W", rotation=90, **style)
    behind = right + DEPTH * SAMPLES / 2
    axes.text(behind[0] + 0.7, behind[1] - 0.5, "N", **style)


def _corners(row: int, column: int) -> list[tuple[int, int]]:
    return [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
