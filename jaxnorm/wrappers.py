"""Estimators made of estimators: what one batch, or several, may do to the statistics."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from jaxnorm.moments import Moments, merge
from jaxnorm.running import Estimator


class Guarded(NamedTuple):
    """The state of `skip_nonfinite`.

    Attributes:
      statistics: the state of the estimator within.
      skipped: how many batches were left out, int32, of shape ().
    """

    statistics: Any
    skipped: Int[Array, ""]


def skip_nonfinite(estimator: Estimator) -> Estimator:
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
    >>> bad = measure(jnp.array([1.0, jnp.nan]), axes=0)
    >>> guarded.update(guarded.init(()), bad)
    Guarded(statistics=Statistics(mean=Array(0., dtype=float32), var=Array(1., dtype=float32)), skipped=Array(1, dtype=int32))
    """  # noqa: E501 (a doctest's output cannot be broken)

    def init(shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Guarded:
        return Guarded(estimator.init(shape, dtype), jnp.zeros((), jnp.int32))

    def update(state: Guarded, moments: Moments) -> Guarded:
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in moments]))
        # No samples, which change nothing; and no NaN goes where a derivative finds it.
        usable = jax.tree.map(lambda each: jnp.where(finite, each, 0), moments)
        return Guarded(
            estimator.update(state.statistics, usable),
            state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32),
        )

    return Estimator(init, update, lambda state: estimator.read(state.statistics))


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


def accumulate(estimator: Estimator, every: int) -> Estimator:
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
      TypeError: every is no integer.
      ValueError: every is less than 1.

    >>> from jaxnorm import ema, measure
    >>> halves = accumulate(ema(0.0), every=2)
    >>> state = halves.init(())
    >>> for half in (jnp.array([1.0, 3.0]), jnp.array([5.0, 7.0])):
    ...     state = halves.update(state, measure(half, axes=0))
    >>> halves.read(state).var, jnp.var(jnp.array([1.0, 3.0, 5.0, 7.0]))
    (Array(5., dtype=float32), Array(5., dtype=float32))
    """
    try:
        every = operator.index(every)
    except TypeError:
        raise TypeError(
            f"every={every!r}, but the number of batches that make an update is expected, "
            "an integer known before tracing."
        ) from None
    if every < 1:
        raise ValueError(
            f"every={every}, but it is the number of batches that make an update and must "
            "be at least 1; 1 updates at once."
        )

    def init(shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Accumulated:
        statistics, pending = estimator.init(shape, dtype), Moments.empty(shape, dtype)
        return Accumulated(statistics, pending, jnp.zeros((), jnp.int32))

    def update(state: Accumulated, moments: Moments) -> Accumulated:
        pending = _merge_into(state.pending, moments)
        batches = state.batches + 1
        updated = Accumulated(
            estimator.update(state.statistics, pending),
            jax.tree.map(jnp.zeros_like, pending),
            jnp.zeros_like(batches),
        )
        waiting = Accumulated(state.statistics, pending, batches)
        full = batches >= every
        return jax.tree.map(lambda u, w: jnp.where(full, u, w), updated, waiting)

    return Estimator(init, update, lambda state: estimator.read(state.statistics))


class Collected(NamedTuple):
    """The state of `collect`.

    Attributes:
      statistics: the state of the estimator within.
      collected: the moments of all batches, merged.
    """

    statistics: Any
    collected: Moments


def collect(estimator: Estimator) -> Estimator:
    """The same, but its statistics stay, while the batches' moments are merged beside them.

    So a network is measured as it is; what was collected is then put to use by whoever
    asked for it, as `calibrate` does.

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

    def init(shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Collected:
        return Collected(estimator.init(shape, dtype), Moments.empty(shape, dtype))

    def update(state: Collected, moments: Moments) -> Collected:
        return state._replace(collected=_merge_into(state.collected, moments))

    return Estimator(init, update, lambda state: estimator.read(state.statistics))


def _merge_into(kept: Moments, moments: Moments) -> Moments:
    """Their merge in the dtypes of `kept`, as a scan wants it."""
    merged = merge(kept, moments)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), merged, kept)
