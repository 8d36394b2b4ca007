"""The tables of the study, computed from its measurements alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.comparison import OURS, PEERS
from experiments.benchmarks.tables import ABSENT, Table, two_digits

TWO_PASSES = "flax, two passes"  # with use_fast_variance=False
NAMES = (OURS, "flax", TWO_PASSES, *PEERS[1:])
FIGURES = (
    "y",  # the largest error
    "dx",  # the largest error over the largest dx
    "of_bound",  # the largest error of y over the bound of its element
    "y_bits",  # of the dtype of y
)
DTYPES = ("float32", "bfloat16", "float16")
NARROW = "†"  # marks an error that is mostly the rounding of y


def tables(measurements: Mapping[str, Any]) -> list[Table]:
    """Returns the errors of y and dx in float32, then the errors of y for 16-bit data."""
    found = [
        errors(measurements, ["float32"], "y", "largest error of y, float32"),
        errors(
            measurements,
            ["float32"],
            "dx",
            "largest error of dx over the largest dx, float32",
        ),
    ]
    narrow = [dtype for dtype in DTYPES[1:] if dtype in measurements]
    if narrow:
        title = f"largest error of y, 16-bit x (σ once rounded; {NARROW}: y is so too)"
        found.append(errors(measurements, narrow, "y", title))
    return found


def errors(
    measurements: Mapping[str, Any], dtypes: list[str], figure: str, title: str
) -> Table:
    """Returns a table with rows of means, for one dtype or several."""
    several = len(dtypes) > 1 or dtypes != ["float32"]
    names = [
        name
        for name in NAMES
        if any(name in measurements[dtype]["implementations"] for dtype in dtypes)
    ]
    rows = []
    for dtype in dtypes:
        table = measurements[dtype]
        for number, mean in enumerate(table["mean"]):
            deviation = f"{table['deviation'][number]:.2g}"
            labels = (dtype, _mean(mean), deviation) if several else (_mean(mean),)
            each = (table["implementations"].get(name) for name in names)
            rows.append((*labels, *(_cell(one, figure, number) for one in each)))
    labels = ("x", "μ", "σ") if several else ("μ",)
    return Table(title, (*labels, *names), rows, len(labels))


def _cell(figures: Mapping[str, Any] | None, figure: str, number: int) -> str:
    """Formats an error; a dash if it is missing, NaN if it is not finite."""
    if figures is None:
        return ABSENT
    value, bits = (
        np.nan if figures[each][number] is None else float(figures[each][number])
        for each in (figure, "y_bits")
    )
    if np.isnan(bits):
        return ABSENT
    return two_digits(value) + (f" {NARROW}" if figure == "y" and bits < 32 else "")


def _mean(value: float) -> str:
    return f"{value:g}" if value < 1e4 else f"1e{round(np.log10(value))}"
