"""Limits on how far batch renormalisation corrects a batch, as a function of the step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.dtypes import check_number

Limits = Callable[[ArrayLike], tuple[Any, Any]]


def renorm_schedule(
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    start: int = 5_000,
    r_end: int = 40_000,
    d_end: int = 25_000,
) -> Limits:
    """Returns the paper's schedule for the limits of batch renormalisation.

    The limits are (1, 0), which is batch normalisation, up to step `start`; then they grow
    linearly, r_max up to step `r_end` and d_max up to step `d_end`.

    Args:
      r_max: the final limit of r, ≥ 1.
      d_max: the final limit of |d|, ≥ 0.
      start: the step up to which the limits are (1, 0).
      r_end: the step from which r_max applies, > start.
      d_end: the step from which d_max applies, > start.

    Returns:
      `limits(step) -> (r_max, d_max)`; the step may be traced.

    Raises:
      TypeError: an argument is not a number.
      ValueError: a limit is out of range or not finite; the steps are out of order.

    Source: Ioffe 2017 (arXiv:1702.03275), section 4.

    >>> limits = renorm_schedule()
    >>> [tuple(map(float, limits(step))) for step in (5_000, 15_000, 40_000)]
    [(1.0, 0.0), (1.5714285373687744, 2.5), (3.0, 5.0)]
    """
    check_number(r_max=r_max, d_max=d_max, start=start, r_end=r_end, d_end=d_end)
    check_limits(r_max, d_max)
    if not (np.isfinite(r_max) and np.isfinite(d_max)):
        raise ValueError(
            f"r_max={r_max} and d_max={d_max}, but limits that grow must be finite; for no "
            "limits, give limits=lambda step: (jnp.inf, jnp.inf)."
        )
    if not 0 <= start < min(r_end, d_end):
        raise ValueError(
            f"start={start}, r_end={r_end} and d_end={d_end}, but the limits must "
            "start to grow before they stop; give 0 ≤ start < r_end and d_end."
        )
    return LinearLimits(r_max, d_max, start, r_end, d_end)


@dataclasses.dataclass(frozen=True)
class LinearLimits:
    """The function that `renorm_schedule` returns; equal if its numbers are equal."""

    r_max: float
    d_max: float
    start: int
    r_end: int
    d_end: int

    def __call__(self, step: ArrayLike) -> tuple[Array, Array]:
        """Returns (r_max, d_max) at a step."""
        since = jnp.asarray(step).astype(jnp.float32) - self.start
        r, d = (
            jnp.clip(since / (end - self.start), 0, 1) for end in (self.r_end, self.d_end)
        )
        return 1 + r * (self.r_max - 1), d * self.d_max


def check_limits(r_max: ArrayLike, d_max: ArrayLike) -> None:
    """Raises if a limit is not a real scalar or, where its value is known, out of range."""
    for name, limit, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
        if not isinstance(limit, jax.Array | np.ndarray):
            check_number(**{name: limit})
        if np.shape(limit) != () or np.iscomplexobj(limit):
            raise ValueError(
                f"{name} has shape {np.shape(limit)} and dtype {np.result_type(limit)}, "
                "but one real number for all features is expected; give a scalar."
            )
        if not isinstance(limit, Tracer) and not np.asarray(limit) >= least:
            raise ValueError(f"{name}={limit}, but it must be at least {least}.")


def check_no_ghosts(ghost_size: Any) -> None:
    """Raises a ValueError if ghost_size is given: renormalisation would undo its effect."""
    if ghost_size is not None:
        raise ValueError(
            f"ghost_size={ghost_size}, but batch renormalisation has no ghost batches: it "
            "removes the noise that they are meant to add; omit ghost_size."
        )
