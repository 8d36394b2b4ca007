"""The arrays of one norm by torch's names, in both directions."""

from typing import Any

import numpy as np

from jaxnorm.interop.arrays import Arrays
from jaxnorm.interop.layouts import counted
from jaxnorm.interop.norm import Norm, below, both_statistics, only, renamed

PARAMS = {"weight": "scale", "bias": "bias"}
STATISTICS = {"running_mean": "mean", "running_var": "var"}
COUNT = "num_batches_tracked"


def arrays_of(
    state: Arrays, prefix: str, names: Any = tuple(PARAMS), tracked: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All arrays of a norm; its parameters and its statistics, by our names."""
    arrays = below(state, prefix, ".")
    only(arrays, (*names, *STATISTICS, COUNT) if tracked else names)
    statistics = renamed(arrays, STATISTICS)
    both_statistics(statistics, STATISTICS)
    renamed(arrays, PARAMS | STATISTICS)  # checks that they have one shape
    return arrays, renamed(arrays, PARAMS), statistics


def to_state(norm: Norm, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the arrays of a norm by torch's names, the inverse of the conversions here.

    If the norm counts updates, there is a num_batches_tracked, even if it was missing.

    Args:
      norm: the result of `batch_norm` or another function here, perhaps with trained params
        and batch_stats put in by `dataclasses.replace`.
      prefix: precedes the names, followed by a dot.

    Raises:
      ValueError: features have had different numbers of batches, but torch keeps a single
        number.

    >>> norm = Norm("LayerNorm", {}, {"scale": jnp.ones(2)})
    >>> to_state(norm, "norm")
    {'norm.weight': array([1., 1.], dtype=float32)}
    """
    ours = {**norm.params, **norm.batch_stats}
    state = {
        name: np.array(ours[slot])
        for name, slot in (PARAMS | STATISTICS).items()
        if slot in ours
    }
    if "updates" in ours:
        updates = np.asarray(ours["updates"])
        state[COUNT] = counted(updates.shape).back(updates)
    start = f"{prefix}." if prefix else ""
    return {start + name: np.array(array) for name, array in (state | norm.unkept).items()}
