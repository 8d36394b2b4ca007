"""By how much batch renormalisation may correct a batch, as a function of the step."""

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
    """The limits of batch renormalisation as a function of the step, as in the paper.

    They are (1, 0), which is batch normalisation, up to the step `start`, then grow
    linearly, r_max up to the step `r_end` and d_max up to `d_end`.

    Args:
      r_max: the limit of r at last, ≥ 1.
      d_max: the limit of d at last, ≥ 0.
      start: the step until which they are (1, 0).
      r_end: the step from which r_max holds, > start.
      d_end: the step from which d_max holds, > start.

    Returns:
      `limits(step) -> (r_max, d_max)`, of a step that may be traced.

    Raises:
      TypeError: one of them is no number.
      ValueError: limits out of their range, or not finite; steps out of their order.

    Source: Ioffe 2017 (arXiv:1702.03275), section 4.

    >>> limits = renorm_schedule()
    >>> [tuple(map(float, limits(step))) for step in (5_000, 15_000, 40_000)]
    [(1.0, 0.0), (1.5714285373687744, 2.5), (3.0, 5.0)]
    """
    check_number(r_max=r_max, d_max=d_max, start=start, r_end=r_end, d_end=d_end)
    check_limits(r_max, d_max)
    if not (np.isfinite(r_max) and np.isfinite(d_max)):
        raise ValueError(
            f"r_max={r_max} and d_max={d_max}, but limits that grow are finite; for none, "
            "give limits=lambda step: (jnp.inf, jnp.inf)."
        )
    if not 0 <= start < min(r_end, d_end):
        raise ValueError(
            f"start={start}, r_end={r_end} and d_end={d_end}, but they are the steps at "
            "which the limits begin and end to grow; give 0 ≤ start < r_end and d_end."
        )
    return LinearLimits(r_max, d_max, start, r_end, d_end)


@dataclasses.dataclass(frozen=True)
class LinearLimits:
    """`renorm_schedule`: equal if its numbers are."""

    r_max: float
    d_max: float
    start: int
    r_end: int
    d_end: int

    def __call__(self, step: ArrayLike) -> tuple[Array, Array]:
        """(r_max, d_max) at a step."""
        since = jnp.asarray(step).astype(jnp.float32) - self.start
        r, d = (
            jnp.clip(since / (end - self.start), 0, 1) for end in (self.r_end, self.d_end)
        )
        return 1 + r * (self.r_max - 1), d * self.d_max


def check_limits(r_max: ArrayLike, d_max: ArrayLike) -> None:
    """Raises for limits that are no real scalars; or out of range, where they are known."""
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
    """Raises a ValueError if ghost batches are asked for, which would be corrected."""
    if ghost_size is not None:
        raise ValueError(
            f"ghost_size={ghost_size}, but batch renormalisation has no ghost batches: it "
            "takes out the noise that these are for; leave it out."
        )
