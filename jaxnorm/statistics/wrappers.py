"""Wrappers around estimators, which change how batches update the statistics."""

import dataclasses
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.dtypes import accumulation_dtype, check_count
from jaxnorm._core.moments import Moments, merge_into
from jaxnorm.statistics.estimator import Estimator, State, check_estimator

# The names under which modules keep the collected moments; see
# `jaxnorm.statistics.state_names`.
COLLECTORS = tuple(f"collected_{name}" for name in Moments._fields)


class SkipNonfiniteState(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      statistics: the state of the wrapped estimator.
      skipped: the number of batches left out, of shape (); a float, like all counts here.
    """

    statistics: Any
    skipped: Float[Array, ""]


def skip_nonfinite(estimator: Estimator[Any]) -> Estimator[SkipNonfiniteState]:
    """Wraps an estimator to skip and count batches with non-finite moments.

    A NaN or overflow in any feature skips the batch for all features. In training, its
    output is still normalised with the batch. (`optax.apply_if_finite` does the same for
    parameters.)

    Args:
      estimator: the estimator to wrap.

    Returns:
      An Estimator with the state `SkipNonfiniteState(statistics, skipped)`.

    >>> from jaxnorm import ema, measure
    >>> guarded = skip_nonfinite(ema(0.9))
    >>> bad = measure(jnp.array([1.0, jnp.nan]), reduction_axes=0)
    >>> guarded.update(guarded.init(()), bad)
    SkipNonfiniteState(statistics=Statistics(mean=Array(0., dtype=float32), var=Array(1., dtype=float32)), skipped=Array(1., dtype=float32))
    """  # noqa: E501 (a doctest's output cannot be broken)
    check_estimator(estimator)
    return SkipNonfinite(estimator)


@dataclasses.dataclass(frozen=True)
class Wrapper(Estimator[State]):
    """An estimator that wraps another, and reads its statistics."""

    estimator: Estimator[Any]

    def matured(self, state: Any) -> Any:
        """Matures the statistics of the wrapped estimator."""
        return state._replace(statistics=self.estimator.matured(state.statistics))

    def read(self, state: Any) -> Moments:
        """Reads the statistics of the wrapped estimator."""
        return self.estimator.read(state.statistics)


@dataclasses.dataclass(frozen=True)
class SkipNonfinite(Wrapper[SkipNonfiniteState]):
    """`skip_nonfinite`."""

    def init(
        self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> SkipNonfiniteState:
        """Nothing skipped."""
        return SkipNonfiniteState(
            self.estimator.init(shape, dtype), jnp.zeros((), accumulation_dtype(dtype))
        )

    def update(self, state: SkipNonfiniteState, moments: Moments) -> SkipNonfiniteState:
        """Adds the batch, or counts it as skipped."""
        finite, usable = _if_finite(moments)
        more = jnp.where(finite, 0, 1).astype(state.skipped.dtype)
        return SkipNonfiniteState(
            self.estimator.update(state.statistics, usable), state.skipped + more
        )


class AccumulateState(NamedTuple):
    """The state of `accumulate`.

    Attributes:
      statistics: the state of the wrapped estimator.
      pending: the merged moments of the batches since its last update.
      batches: the number of these batches, of shape ().
    """

    statistics: Any
    pending: Moments
    batches: Float[Array, ""]


def accumulate(estimator: Estimator[Any], every: int) -> Estimator[AccumulateState]:
    """Wraps an estimator to update once every few batches, with all their samples merged.

    Use it when gradients are accumulated over microbatches, as by `optax.MultiSteps` with
    `every_k_schedule=every`: the statistics are then updated at each step of the optimiser,
    as if it were one batch. (Each microbatch is still normalised by itself.)

    Args:
      estimator: the estimator to wrap.
      every: the number of batches per update, ≥ 1.

    Returns:
      An Estimator with the state `AccumulateState(statistics, pending, batches)`. A
      batch of count 0 adds no samples, but counts towards `every`, as it does for the
      optimiser.

    Raises:
      TypeError: every is not an integer, or estimator is not an Estimator.
      ValueError: every is less than 1.

    >>> from jaxnorm import ema, measure
    >>> halves = accumulate(ema(0.0), every=2)
    >>> state = halves.init(())
    >>> for half in (jnp.array([1.0, 3.0]), jnp.array([5.0, 7.0])):
    ...     state = halves.update(state, measure(half, reduction_axes=0))
    >>> halves.read(state).var, jnp.var(jnp.array([1.0, 3.0, 5.0, 7.0]))
    (Array(5., dtype=float32), Array(5., dtype=float32))
    """
    check_estimator(estimator)
    check_count(every=every)
    return Accumulate(estimator, every)


@dataclasses.dataclass(frozen=True)
class Accumulate(Wrapper[AccumulateState]):
    """`accumulate`."""

    every: int

    def init(
        self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> AccumulateState:
        """Nothing pending."""
        statistics = self.estimator.init(shape, dtype)
        none = jnp.zeros((), accumulation_dtype(dtype))
        return AccumulateState(statistics, _nothing(shape, dtype), none)

    def update(self, state: AccumulateState, moments: Moments) -> AccumulateState:
        """Adds the batch to those pending; passes them on, merged, if they are complete."""
        pending = merge_into(state.pending, moments)
        batches = state.batches + 1
        updated = AccumulateState(
            self.estimator.update(state.statistics, pending),
            jax.tree.map(jnp.zeros_like, pending),
            jnp.zeros_like(batches),
        )
        waiting = AccumulateState(state.statistics, pending, batches)
        # In 16 bits, a count stops at 256 or 2,048.
        full = (batches >= self.every) | (batches == state.batches)
        return jax.tree.map(lambda u, w: jnp.where(full, u, w), updated, waiting)


class CollectState(NamedTuple):
    """The state of `collect`.

    Attributes:
      statistics: the state of the wrapped estimator.
      collected: the merged moments of all batches.
    """

    statistics: Any
    collected: Moments


def collect(estimator: Estimator[Any]) -> Estimator[CollectState]:
    """Wraps an estimator to merge the batches' moments beside its unchanged statistics.

    This measures a network without changing it; the caller then uses the moments, as
    `calibrate` does. Batches that `skip_nonfinite` leaves out are still left out, but not
    counted.

    Args:
      estimator: the estimator to wrap.

    Returns:
      An Estimator with the state `CollectState(statistics, collected)`.

    >>> from jaxnorm import ema, measure
    >>> collecting = collect(ema(0.9))
    >>> state = collecting.update(collecting.init(()), measure(jnp.array([1.0, 3.0]), 0))
    >>> float(collecting.read(state).mean), float(state.collected.mean)
    (0.0, 2.0)
    """
    check_estimator(estimator)
    return Collect(estimator)


@dataclasses.dataclass(frozen=True)
class Collect(Wrapper[CollectState]):
    """`collect`."""

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> CollectState:
        """Nothing collected."""
        return CollectState(self.estimator.init(shape, dtype), _nothing(shape, dtype))

    def update(self, state: CollectState, moments: Moments) -> CollectState:
        """Merges the batch into the collected moments."""
        if _guards(self.estimator):
            _, moments = _if_finite(moments)
        return state._replace(collected=merge_into(state.collected, moments))


def while_calibrating(estimator: Estimator[Any], kept: Container[str]) -> Estimator[Any]:
    """Wraps an estimator in `collect`, if the arrays kept by a module include collectors.

    A calibration can thus pass its collectors in wherever the statistics go.
    """
    under_way = COLLECTORS[0] in kept and not isinstance(estimator, Collect)
    return collect(estimator) if under_way else estimator


def _guards(estimator: Any) -> bool:
    """Whether it, or an estimator that it wraps, leaves out non-finite batches."""
    if isinstance(estimator, SkipNonfinite):
        return True
    return isinstance(estimator, Wrapper) and _guards(estimator.estimator)


def _if_finite(moments: Moments) -> tuple[Array, Moments]:
    """Whether all moments are finite; and the moments, or empty ones if not."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in moments]))
    # Removes any NaN, which would otherwise reach derivatives.
    return finite, jax.tree.map(lambda each: jnp.where(finite, each, 0), moments)


def _nothing(shape: tuple[int, ...], dtype: DTypeLike) -> Moments:
    """Empty Moments in at least float32, since counts can be too large for 16 bits."""
    return Moments.empty(shape, accumulation_dtype(dtype))
