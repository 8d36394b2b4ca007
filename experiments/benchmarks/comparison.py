"""Who is compared, by which figures, and how the times of one stand to those of others.

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
    """What tables call the modes of an op; a lone way forward is not called `train`."""
    modes = tuple(modes)
    lone = {} if "eval-forward" in modes else {"train-forward": "forward"}
    return {mode: (LABELS | lone)[mode] for mode in modes}


# Of every implementation in every case, where it has them:
FIGURES = (
    "milliseconds",  # the median over rounds
    "lower_quartile",
    "upper_quartile",
    "jaxnorm_ratio",  # the time of jaxnorm over this one's
    "copy_share",  # the minimal bytes over the time, as a share of what the copy reaches
    "residual_ratio",  # what is kept for the backward pass, in sizes of x
    "temporary_bytes",
    "compile_seconds",
    "largest_error",  # of y against float64
)
Figures = Mapping[str, Mapping[Any, Any]]  # of one case: by implementation, then by name

RATIOS: dict[str, tuple[str, ...]] = {
    "flax": ("flax",),
    "JAX": JAX_PEERS,
    "torch": ("torch",),
}


def ratio(figures: Figures, others: Iterable[str]) -> float:
    """The time of jaxnorm over that of the fastest of the others; NaN without any."""
    return max(
        (figures[name].get("jaxnorm_ratio", np.nan) for name in others if name in figures),
        key=lambda value: -np.inf if np.isnan(value) else value,
        default=np.nan,
    )


def geometric_mean(values: Iterable[float]) -> float:
    """Of those that are there; NaN if none is."""
    found = np.array([value for value in values if np.isfinite(value)], float)
    return float(np.exp(np.log(found).mean())) if len(found) else np.nan


class Beside(NamedTuple):
    """A figure that stands beside the times; the most over the shapes is shown."""

    label: str
    mode: str
    figure: str
    form: Callable[[float], str]

    def most(self, cases: Iterable[Figures]) -> dict[str, str]:
        """Of each library that has the figure, over cases of the mode."""
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
