"""Input statistics: moments and range of an array, or of a data set read in batches."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxnorm._core.axes import Axis, canonical_axes, complement, sizes_of
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.measurement import measure
from jaxnorm._core.moments import Moments, merge
from jaxnorm._core.pairwise import Cascade
from jaxnorm._core.weights import as_weights, weighted


class Summary(NamedTuple):
    """Moments and range of each feature; a commutative monoid under `merge_summaries`.

    All arrays have the shape of the feature axes of the data, and one dtype, at least
    float32. Like any tuple of arrays, a Summary can be saved and passed through jax.jit.

    Attributes:
      moments: count, mean and variance of the samples.
      minimum: the smallest sample, or +∞ where count is 0.
      maximum: the largest sample, or −∞ where count is 0.

    >>> summary = summarize(jnp.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> summary.minimum, summary.maximum
    (Array([ 1., 10.], dtype=float32), Array([ 3., 30.], dtype=float32))
    """

    moments: Moments
    minimum: Float[Array, "*features"]
    maximum: Float[Array, "*features"]

    @classmethod
    def empty(
        cls, shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
    ) -> "Summary":
        """Returns the summary of no samples, the identity of `merge_summaries`.

        >>> Summary.empty((2,)).minimum
        Array([inf, inf], dtype=float32)
        """
        infinite = jnp.full(shape, jnp.inf, dtype)
        return cls(Moments.empty(shape, dtype), infinite, -infinite)


@renamed_arguments(axis="feature_axes")
def summarize(
    x: ArrayLike, feature_axes: Axis = -1, weights: ArrayLike | None = None
) -> Summary:
    """Returns the moments and the range of each feature of one array.

        n = Σw,  μ = Σw·x / n,  σ² = Σw·(x − μ)² / n,  min and max of x where w > 0

    Args:
      x: floating array of any rank.
      feature_axes: the feature axis or axes; samples lie along all other axes. () treats
        all of x as one feature.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the statistics, even if they are NaN or infinite.

    Returns:
      A Summary with the shape of the feature axes, in at least float32.

    Raises:
      TypeError: x does not have a real floating dtype, or weights are complex.
      ValueError: an axis is out of range or repeated; weights do not broadcast.

    >>> x = jnp.array([[1.0, 10.0], [3.0, jnp.nan]])
    >>> summarize(x, weights=jnp.array([[1.0], [0.0]])).maximum
    Array([ 1., 10.], dtype=float32)
    """
    x = as_floating(x)
    samples = complement(canonical_axes(feature_axes, x.ndim), x.ndim)
    if weights is not None:
        weights = as_weights(weights, x)
    moments = measure(x, samples, weights)
    wide = x.astype(moments.mean.dtype)
    used = None if weights is None else jnp.broadcast_to(weighted(weights), x.shape)
    return Summary(
        moments,
        jnp.min(wide, samples, initial=jnp.inf, where=used),
        jnp.max(wide, samples, initial=-jnp.inf, where=used),
    )


def merge_summaries(*summaries: Summary) -> Summary:
    """Returns the summary of all samples together, from the summaries of their parts.

    The moments are merged by `merge`, and up to rounding do not depend on the order; the
    ranges are exact. `Summary.empty()` changes nothing.

    Raises:
      ValueError: no summaries are given, or their features have different shapes.

    >>> x = jnp.array([1.0, 2.0, 4.0, 9.0])
    >>> whole = merge_summaries(summarize(x[:1], ()), summarize(x[1:], ()))
    >>> float(whole.moments.mean), float(whole.minimum), float(whole.maximum)
    (4.0, 1.0, 9.0)
    """
    if not summaries:
        raise ValueError(
            "merge_summaries was given no Summary; give at least one, or start with "
            "Summary.empty()."
        )
    moments = merge(*(each.moments for each in summaries))
    dtype = moments.mean.dtype  # the finest; JAX may refuse to promote to it implicitly
    minima, maxima = (
        [jnp.asarray(each, dtype) for each in bounds]
        for bounds in zip(*(each[1:] for each in summaries), strict=True)
    )
    return Summary(
        moments,
        functools.reduce(jnp.minimum, minima),
        functools.reduce(jnp.maximum, maxima),
    )


# Compiled once per batch shape, for all passes over data.
_summarize = jax.jit(summarize, static_argnames=("feature_axes",))
_merge = jax.jit(merge_summaries)


@renamed_arguments(axis="feature_axes")
def fit(
    batches: Iterable[Any],
    *,
    feature_axes: Axis = -1,
    start: Summary | None = None,
    progress: bool = True,
) -> Summary:
    """Summarises data that does not fit in memory, one batch after another.

    Each batch is finished before the next is requested. The summaries are merged in pairs
    that cover equally many batches, because adding a single batch to a large mean loses
    digits to rounding. On 4,096 batches of sorted values with mean 10⁴ and standard
    deviation 1, merging one after another makes σ² wrong by 45 % in float32, and merging
    in pairs by 0.1 %.

    Args:
      batches: arrays, as for `summarize`, or tuples (x, weights), with features of one
        shape and any number of samples. Each new batch shape is compiled once; to avoid
        that for the last batch, pad it with a weight of 0. For tuples of x and labels,
        give (x for x, _ in data).
      feature_axes: the feature axis or axes of each batch.
      start: the Summary of data seen before, to resume from. Up to rounding, the result
        equals a single pass over all of the data, which merges other pairs.
      progress: whether to show a progress bar on stderr.

    Returns:
      A Summary with the shape of the feature axes, in at least float32.

    Raises:
      TypeError: a batch does not have a real floating dtype: map it to
        x.astype(jnp.float32) first; a batch is a mapping; its weights are integers, as
        labels are.
      ValueError: there is nothing to summarise; the features of a batch differ in shape
        from those before; an axis or weights do not fit.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance",
    section 2, for the pairs.

    >>> batches = [jnp.array([[1.0], [2.0]]), jnp.array([[6.0]])]
    >>> fit(batches, progress=False).moments.mean
    Array([3.], dtype=float32)
    """
    if start is not None:
        check_summary(start)
    shape = None if start is None else jnp.shape(start.minimum)
    cascade = Cascade(_merge)
    for batch in tqdm(batches, unit="batch", disable=not progress):
        part = _summarize_batch(batch, feature_axes, shape)
        shape = part.minimum.shape
        cascade.add(part)
    total = cascade.total(start)
    if total is None:
        raise ValueError(
            "fit was given no batches, and no start= to resume from; give at least one. "
            "(An iterator exhausted by an earlier pass yields none: make a new one.)"
        )
    return total


def _summarize_batch(
    batch: Any, feature_axes: Axis, shape: tuple[int, ...] | None
) -> Summary:
    """Summarises a batch whose features must have this shape; None allows any."""
    array, weights = _array_and_weights(batch)
    x = as_floating(array)
    axes = canonical_axes(feature_axes, x.ndim)
    given = sizes_of(x.shape, axes)
    if shape is not None and given != shape:
        raise ValueError(
            f"a batch of shape {x.shape} has features of shape {given}, along "
            f"feature_axes={feature_axes}, but those before it, or start=, have {shape}; "
            "pass as feature_axes= axes that have the same size in all batches, and crop "
            "or pad batches that vary."
        )
    return _summarize(x, axes, weights)


def _array_and_weights(batch: Any) -> tuple[Any, Any]:
    """Returns the x and weights (or None) of a batch; raises if it is anything else."""
    if isinstance(batch, Mapping):
        raise TypeError(
            f"a batch is a {type(batch).__name__} with the keys {[*batch]}, but an array, "
            'or a tuple (x, weights), is expected; select x, as in (batch["image"] for '
            "batch in data)."
        )
    if not isinstance(batch, tuple):
        return batch, None
    if len(batch) != 2:
        raise ValueError(
            f"a batch is a tuple of {len(batch)}, but an array x, or a tuple of two, "
            "(x, weights), is expected; select x, as in (x for x, *_ in data)."
        )
    x, weights = batch
    if weights is not None and jnp.issubdtype(jnp.result_type(weights), jnp.integer):
        raise TypeError(
            f"a batch is a tuple (x, weights) whose weights have dtype "
            f"{jnp.result_type(weights)}, but a boolean mask or floating weights are "
            "expected. If they are labels, select x, as in (x for x, _ in data); if they "
            "are counts, give weights.astype(jnp.float32)."
        )
    return x, weights


def check_summary(summary: Any) -> None:
    """Raises a TypeError unless `summary` is a Summary."""
    if not isinstance(summary, Summary):
        raise TypeError(
            f"a {type(summary).__name__} was given instead of a Summary(moments, minimum, "
            "maximum); make one with fit(batches) or summarize(x)."
        )
