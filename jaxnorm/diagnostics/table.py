"""A report as text: a row for each norm, with what is probably wrong in the last column."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from jaxnorm.diagnostics.faults import Diagnosis, Note
from jaxnorm.diagnostics.gap import Gap
from jaxnorm.diagnostics.metrics import NormMetrics, Values
from jaxnorm.diagnostics.observing import Unexamined

WIDTH = 118
LEAST_WORDS = 40
HEADINGS = (
    "norm",
    "count",
    "mean off",
    "log var",
    "dead",
    "γ≈0",
    "sat.",
    "NaN",
    "out",
    "probable fault → how to fix it",
)
CAPTION = (
    "mean off: |running − batch mean|/σ; log var: log(running/batch variance); each for "
    "the median and the worst feature. out: (mean − β)/|γ| and standard deviation/|γ| of "
    "the output in evaluation."
)
NONE = "–"


def table(
    norms: Sequence[NormMetrics],
    diagnoses: Sequence[Diagnosis],
    notes: Sequence[Note],
    gap: Gap,
    unexamined: Sequence[Unexamined],
) -> str:
    """The whole report, at most about 118 columns wide."""
    found = [(d.fault, d.norm, d.words) for d in diagnoses]
    found += [(f"note, {n.note}", n.norm, n.words) for n in notes]
    cells = [cells_of(norm) for norm in norms]
    widths = [max(map(len, column)) for column in zip(HEADINGS[:-1], *cells, strict=True)]
    left = max(WIDTH - sum(widths) - 2 * len(widths), LEAST_WORDS)
    first: dict[str, str] = {}  # the norm where each message is shown in full
    lines = [_line(HEADINGS[:-1], widths, HEADINGS[-1])]
    lines.append("─" * (len(lines[0]) - len(HEADINGS[-1]) + left))
    for norm, row in zip(norms, cells, strict=True):
        said = [
            f"{what}: {words}"
            if first.setdefault(words, norm.name) == norm.name
            else f"{what}, same as at {first[words]}"
            for what, name, words in found
            if name == norm.name
        ]
        words = [part for each in said for part in textwrap.wrap(each, left)] or [NONE]
        lines.append(_line(row, widths, words[0]))
        lines += [" " * (sum(widths) + 2 * len(widths)) + each for each in words[1:]]
    lines += ["", sentence(gap), *textwrap.wrap(listed(unexamined), WIDTH)]
    lines += textwrap.wrap(CAPTION, WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def _line(row: Sequence[str], widths: Sequence[int], last: str) -> str:
    """Aligns the name to the left, and numbers to the right."""
    name, *numbers = (
        f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([name, *numbers, last])


def cells_of(norm: NormMetrics) -> list[str]:
    """The figures of a norm, in the order of the headings."""
    saturated = NONE if norm.saturated is None else f"{np.mean(norm.saturated):.0%}"
    off = None if norm.distance is None else np.abs(norm.distance)
    out = f"{_median(norm.shift):+.1f}, {_median(norm.spread):.2g}"
    return [
        norm.name,
        f"{norm.count:.4g}",
        NONE if off is None else f"{_median(off):.1f} {_worst(off):.1f}",
        NONE if norm.log_ratio is None else _signed(norm.log_ratio),
        str(int(np.sum(norm.dead > 0.5))),
        str(int(np.sum(norm.small_scale))),
        saturated,
        str(sum(norm.nonfinite)),
        out,
    ]


def sentence(gap: Gap) -> str:
    """Describes the gap in a sentence."""
    if math.isnan(gap.relative):
        return "Output: evaluation is not compared with training."
    said = (
        f"Output: evaluation differs from training by {gap.relative:.0%} (root mean "
        f"square), {gap.largest:.3g} at most"
    )
    return said + (
        "." if gap.changed is None else f"; {gap.changed:.0%} of the predictions change."
    )


def listed(unexamined: Sequence[Unexamined]) -> str:
    """Names the norms that are not examined, and says why; "" if there are none."""
    said = [f"{each.path or 'the norm'} ({each.kind}) {each.reason}" for each in unexamined]
    return f"Not examined: {'; '.join(said)}." if said else ""


def _signed(values: Values) -> str:
    return f"{_median(values):+.1f} {_worst(values):+.1f}"


def _median(values: Values) -> float:
    """The median of the finite values."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _worst(values: Values) -> float:
    """The value farthest from 0, or a non-finite one if there is any."""
    spoilt = values[~np.isfinite(values)]
    return float(spoilt[0] if spoilt.size else values[np.argmax(np.abs(values))])
