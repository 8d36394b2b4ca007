"""Input statistics: the moments and the range of an array, or of a data set in batches."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxnorm._core.axes import Axis, canonical_axes, complement, take
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.measurement import measure
from jaxnorm._core.moments import Moments, merge
from jaxnorm._core.pairwise import Cascade
from jaxnorm._core.weights import as_weights, weighted


class Summary(NamedTuple):
    """What is known of each feature; a commutative monoid under `merge_summaries`.

    All have one shape, that of the feature axes of the data, and one dtype, at least
    float32. Like any tuple of arrays it can be saved, and is an argument under jax.jit.

    Attributes:
      moments: count, mean and variance of the samples.
      minimum: the least of them, and +∞ where count is 0.
      maximum: the largest, and −∞ where count is 0.

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
        """The summary of no samples, the identity of `merge_summaries`.

        >>> Summary.empty((2,)).minimum
        Array([inf, inf], dtype=float32)
        """
        infinite = jnp.full(shape, jnp.inf, dtype)
        return cls(Moments.empty(shape, dtype), infinite, -infinite)


@renamed_arguments(axis="feature_axes")
def summarize(
    x: ArrayLike, feature_axes: Axis = -1, weights: ArrayLike | None = None
) -> Summary:
    """The moments and the range of each feature of one array.

        n = Σw,  μ = Σw·x / n,  σ² = Σw·(x − μ)² / n,  min and max of x where w > 0

    Args:
      x: floating array of any rank.
      feature_axes: the feature axis or axes; all others are of samples. () makes one
        feature of all of x.
      weights: boolean mask or non-negative weights that broadcast against x. What has
        weight 0 reaches nothing, be it NaN or infinite.

    Returns:
      A Summary of the shape of the axes `feature_axes`, in at least float32.

    Raises:
      TypeError: x is not real floating, or weights are complex.
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
    """The summary of all samples together, from the summaries of their parts.

    The moments go by `merge`, up to rounding in any order; the ranges are exact.
    `Summary.empty()` changes nothing.

    Raises:
      ValueError: no summaries, or of features of different shapes.

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
    dtype = moments.mean.dtype  # the finest, to which nothing is promoted silently
    minima, maxima = (
        [jnp.asarray(each, dtype) for each in bounds]
        for bounds in zip(*(each[1:] for each in summaries), strict=True)
    )
    return Summary(
        moments,
        functools.reduce(jnp.minimum, minima),
        functools.reduce(jnp.maximum, maxima),
    )


# Compiled once a shape of batch, and for all passes over data.
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
    """Summarises data that does not fit memory, one batch after another.

    Each is done with before the next is asked for. The summaries are merged in pairs of
    as many batches: what a single batch adds to a large mean is lost in its rounding. On
    4,096 batches of sorted values of mean 10⁴ and deviation 1, merging one after another
    makes σ² wrong by 45 % in float32, and pairs by 0.1 %.

    Args:
      batches: arrays, as `summarize` takes them, or tuples (x, weights); of one shape of
        features, and any number of samples. Each new shape of batch is compiled for once:
        pad the last batch with a weight of 0, or let it be. Tuples of x and labels are
        not meant: give (x for x, _ in data).
      feature_axes: the feature axis or axes of each batch.
      start: the Summary of data seen before, to go on from. Equal to one pass over all
        of the data up to rounding, as other pairs are merged.
      progress: whether to show a bar on stderr.

    Returns:
      A Summary of the shape of the axes `feature_axes`, in at least float32.

    Raises:
      TypeError: a batch is not real floating: map it to x.astype(jnp.float32) first.
      ValueError: there is nothing to summarise; the features of a batch are not of the
        shape of those before; an axis or weights that do not fit.

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
            "fit was given no batches, and no start= to go on from; give at least one. "
            "(An iterator that was used up by a pass before gives none: make a new one.)"
        )
    return total


def _summarize_batch(
    batch: Any, feature_axes: Axis, shape: tuple[int, ...] | None
) -> Summary:
    """The summary of a batch whose features must be of this shape, None being any."""
    pair = batch if isinstance(batch, tuple) else (batch, None)
    if len(pair) != 2:
        raise ValueError(
            f"a batch is a tuple of {len(pair)}, but an array x, or a tuple of two, "
            "(x, weights), is expected; choose what is meant, as in (x for x, *_ in data)."
        )
    x = as_floating(pair[0])
    axes = canonical_axes(feature_axes, x.ndim)
    given = take(x.shape, axes)
    if shape is not None and given != shape:
        raise ValueError(
            f"a batch of shape {x.shape} has features of shape {given}, along "
            f"feature_axes={feature_axes}, but those before it, or start=, have {shape}; "
            "name the axes of features, of one size in all batches, in "
            "feature_axes=, and crop or pad to it what varies."
        )
    return _summarize(x, axes, pair[1])


def check_summary(summary: Any) -> None:
    """Raises a TypeError unless it is a Summary."""
    if not isinstance(summary, Summary):
        raise TypeError(
            f"a {type(summary).__name__} was given for a Summary(moments, minimum, "
            "maximum); make one with fit(batches) or summarize(x)."
        )
