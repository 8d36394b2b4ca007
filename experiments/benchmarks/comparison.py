"""The implementations compared, the figures measured, and the ratios of their times.

Imports none of the libraries, so that a result can be read without them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.tables import two_digits

OURS, COPY = "jaxnorm", "copy"
JAX_PEERS = ("flax", "haiku", "equinox", "keras")
PEERS = (*JAX_PEERS, "torch")
IMPLEMENTATIONS = (COPY, OURS, *PEERS)

STEP = "training-step"
LABELS = {
    "eval-forward": "eval",
    "train-forward": "train",
    "backward": "backward",
    "forward-backward": "fwd+bwd",
    STEP: "step",
}


def labels(modes: Iterable[str]) -> dict[str, str]:
    """Returns the modes' names in tables; without `eval`, `train` is called `forward`."""
    modes = tuple(modes)
    lone = {} if "eval-forward" in modes else {"train-forward": "forward"}
    return {mode: (LABELS | lone)[mode] for mode in modes}


# For every implementation in every case, if available:
FIGURES = (
    "milliseconds",  # the median over rounds
    "lower_quartile",
    "upper_quartile",
    "jaxnorm_ratio",  # the time of jaxnorm over this one's
    "copy_share",  # minimal bytes over time, as a share of the copy's bandwidth
    "residual_ratio",  # size of the residuals, in sizes of x
    "temporary_bytes",
    "compile_seconds",
    "largest_error",  # of y against float64
)
Figures = Mapping[str, Mapping[Any, Any]]  # for one case: by implementation, then by name

RATIOS: dict[str, tuple[str, ...]] = {
    "flax": ("flax",),
    "JAX": JAX_PEERS,
    "torch": ("torch",),
}


def ratio(figures: Figures, others: Iterable[str]) -> float:
    """Returns jaxnorm's time over the fastest other time; NaN without others."""
    return max(
        (figures[name].get("jaxnorm_ratio", np.nan) for name in others if name in figures),
        key=lambda value: -np.inf if np.isnan(value) else value,
        default=np.nan,
    )


def geometric_mean(values: Iterable[float]) -> float:
    """Returns the geometric mean of the finite values; NaN if there are none."""
    found = np.array([value for value in values if np.isfinite(value)], float)
    return float(np.exp(np.log(found).mean())) if len(found) else np.nan


class Beside(NamedTuple):
    """A figure shown beside the times, as its maximum over the shapes."""

    label: str
    mode: str
    figure: str
    form: Callable[[float], str]

    def most(self, cases: Iterable[Figures]) -> dict[str, str]:
        """Returns the maximum over cases of the mode, for each library that has it."""
        cases = list(cases)
        found = {
            name: [
                float(each[name][self.figure])
                for each in cases
                if self.figure in each.get(name, {})
            ]
            for name in (OURS, *PEERS)
        }
        return {name: self.form(max(values)) for name, values in found.items() if values}


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.3g}"


KEPT = Beside(
    "kept for backward, in sizes of x", "backward", "residual_ratio", "{:.3g}".format
)
BESIDE = (
    KEPT,
    Beside("largest error of y", "train-forward", "largest_error", two_digits),
    Beside("seconds to compile", "forward-backward", "compile_seconds", "{:.2g}".format),
    Beside("temporaries, MB", "forward-backward", "temporary_bytes", _megabytes),
    Beside("temporaries of a step, MB", STEP, "temporary_bytes", _megabytes),
)
