"""Estimators made of estimators: what one batch, or several, may do to the statistics."""

import dataclasses
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from jaxnorm._core.dtypes import accumulation_dtype, check_count
from jaxnorm._core.moments import Moments, merge_into
from jaxnorm.statistics.estimator import Estimator, State, check_estimator

# The names that modules keep what is collected by; see `jaxnorm.statistics.state_names`.
COLLECTORS = tuple(f"collected_{name}" for name in Moments._fields)


class Guarded(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      statistics: the state of the estimator within.
      skipped: how many batches were left out, int32, of shape ().
    """

    statistics: Any
    skipped: Int[Array, ""]


def skip_nonfinite(estimator: Estimator[Any]) -> Estimator[Guarded]:
    """The same, but a batch whose moments are not all finite changes nothing, and is counted.

    One NaN or overflow in one feature, and the batch is left out for all of them; the
    output in training is that of the batch all the same. (`optax.apply_if_finite` does it
    to the parameters.)

    Args:
      estimator: what keeps the statistics.

    Returns:
      An Estimator whose state is `Guarded(statistics, skipped)`.

    >>> from jaxnorm import ema, measure
    >>> guarded = skip_nonfinite(ema(0.9))
    >>> bad = measure(jnp.array([1.0, jnp.nan]), reduction_axes=0)
    >>> guarded.update(guarded.init(()), bad)
    Guarded(statistics=Statistics(mean=Array(0., dtype=float32), var=Array(1., dtype=float32)), skipped=Array(1, dtype=int32))
    """  # noqa: E501 (a doctest's output cannot be broken)
    check_estimator(estimator)
    return SkipNonfinite(estimator)


@dataclasses.dataclass(frozen=True)
class Wrapper(Estimator[State]):
    """An estimator around another, whose statistics it reads."""

    estimator: Estimator[Any]

    def read(self, state: Any) -> Moments:
        """As the estimator within."""
        return self.estimator.read(state.statistics)


@dataclasses.dataclass(frozen=True)
class SkipNonfinite(Wrapper[Guarded]):
    """`skip_nonfinite`."""

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Guarded:
        """Nothing skipped."""
        return Guarded(self.estimator.init(shape, dtype), jnp.zeros((), jnp.int32))

    def update(self, state: Guarded, moments: Moments) -> Guarded:
        """With the batch, or with one more skipped."""
        finite, usable = _if_finite(moments)
        more = jnp.where(finite, 0, 1).astype(jnp.int32)
        return Guarded(
            self.estimator.update(state.statistics, usable),
            jnp.minimum(state.skipped, jnp.iinfo(jnp.int32).max - more) + more,
        )


class Accumulated(NamedTuple):
    """The state of `accumulate`.

    Attributes:
      statistics: the state of the estimator within.
      pending: the moments, merged, of the batches since its last update.
      batches: how many these are, int32, of shape ().
    """

    statistics: Any
    pending: Moments
    batches: Int[Array, ""]


def accumulate(estimator: Estimator[Any], every: int) -> Estimator[Accumulated]:
    """The same, but updated once for so many batches, by all their samples together.

    For gradients that are accumulated over microbatches, as by `optax.MultiSteps` with
    `every_k_schedule=every`: the statistics then follow the steps of the optimiser, not the
    microbatches, as if each step were one batch. (Each microbatch is normalised by itself.)

    Args:
      estimator: what keeps the statistics.
      every: how many batches make an update, ≥ 1.

    Returns:
      An Estimator whose state is `Accumulated(statistics, pending, batches)`. A batch of
      count 0 adds no sample, but is one of the `every`, as it is for the optimiser.

    Raises:
      TypeError: every is no integer, or estimator none.
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
class Accumulate(Wrapper[Accumulated]):
    """`accumulate`."""

    every: int

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Accumulated:
        """Nothing pending."""
        statistics = self.estimator.init(shape, dtype)
        return Accumulated(statistics, _nothing(shape, dtype), jnp.zeros((), jnp.int32))

    def update(self, state: Accumulated, moments: Moments) -> Accumulated:
        """With one more batch pending, or with all that were merged and passed on."""
        pending = merge_into(state.pending, moments)
        batches = state.batches + 1
        updated = Accumulated(
            self.estimator.update(state.statistics, pending),
            jax.tree.map(jnp.zeros_like, pending),
            jnp.zeros_like(batches),
        )
        waiting = Accumulated(state.statistics, pending, batches)
        full = batches >= self.every
        return jax.tree.map(lambda u, w: jnp.where(full, u, w), updated, waiting)


class Collected(NamedTuple):
    """The state of `collect`.

    Attributes:
      statistics: the state of the estimator within.
      collected: the moments of all batches, merged.
    """

    statistics: Any
    collected: Moments


def collect(estimator: Estimator[Any]) -> Estimator[Collected]:
    """The same, but its statistics stay, while the batches' moments are merged beside them.

    So a network is measured as it is; what was collected is then put to use by whoever
    asked for it, as `calibrate` does. An estimator that skips what is not finite
    goes on doing so, without counting it.

    Args:
      estimator: what keeps the statistics.

    Returns:
      An Estimator whose state is `Collected(statistics, collected)`.

    >>> from jaxnorm import ema, measure
    >>> collecting = collect(ema(0.9))
    >>> state = collecting.update(collecting.init(()), measure(jnp.array([1.0, 3.0]), 0))
    >>> float(collecting.read(state).mean), float(state.collected.mean)
    (0.0, 2.0)
    """
    check_estimator(estimator)
    return Collect(estimator)


@dataclasses.dataclass(frozen=True)
class Collect(Wrapper[Collected]):
    """`collect`."""

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Collected:
        """Nothing collected."""
        return Collected(self.estimator.init(shape, dtype), _nothing(shape, dtype))

    def update(self, state: Collected, moments: Moments) -> Collected:
        """With the batch collected."""
        if _guards(self.estimator):
            _, moments = _if_finite(moments)
        return state._replace(collected=merge_into(state.collected, moments))


def while_calibrating(estimator: Estimator[Any], kept: Container[str]) -> Estimator[Any]:
    """`collect` around an estimator, if a module is given what only that keeps.

    So a calibration passes its collectors in with the statistics, by any way these go.
    """
    under_way = COLLECTORS[0] in kept and not isinstance(estimator, Collect)
    return collect(estimator) if under_way else estimator


def _guards(estimator: Any) -> bool:
    """Whether it, or one within it, leaves out what is not finite."""
    if isinstance(estimator, SkipNonfinite):
        return True
    return isinstance(estimator, Wrapper) and _guards(estimator.estimator)


def _if_finite(moments: Moments) -> tuple[Array, Moments]:
    """Whether all are finite; and the moments, or those of nothing."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in moments]))
    # No NaN goes where a derivative finds it.
    return finite, jax.tree.map(lambda each: jnp.where(finite, each, 0), moments)


def _nothing(shape: tuple[int, ...], dtype: DTypeLike) -> Moments:
    """In at least float32: counts are larger than 16 bits can tell apart."""
    return Moments.empty(shape, accumulation_dtype(dtype))
