"""Inputs scaled by the moments or the range of their data set."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, complement, expand, take
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import accumulation_dtype, as_floating
from jaxnorm._core.normalization import normalize
from jaxnorm.preprocessing.summary import Summary, check_summary


@renamed_arguments(axis="feature_axes")
def standardize(
    x: ArrayLike, summary: Summary, feature_axes: Axis = -1
) -> Float[Array, "..."]:
    """Scales `x` so that the data summarised have mean 0 and variance 1.

        y = (x − μ)/σ

    σ² is the biased variance, Σ(x − μ)²/n. The shape of the distribution stays what it
    was: it is normal only if x is. Where a feature is constant or was never seen, y is 0.

    Args:
      x: floating array of any rank.
      summary: that of the data, of the shape of the axes `feature_axes` of x.
      feature_axes: the feature axis or axes.

    Returns:
      y, in the shape and dtype of x; 16 bit are computed in float32.

    Raises:
      TypeError: x is not real floating, or summary is no Summary.
      ValueError: an axis is out of range or repeated; the summary is of other features.

    Source: scikit-learn's StandardScaler, which differs in dividing a constant by 1.

    >>> from jaxnorm import summarize
    >>> x = jnp.array([[1.0], [3.0]])
    >>> standardize(x, summarize(x)).T
    Array([[-1.,  1.]], dtype=float32)
    """
    x, axes = _check_operands(x, summary, feature_axes)
    samples = complement(axes, x.ndim)
    return normalize(
        x, summary.moments, reduction_axes=samples, feature_axes=axes, epsilon=0.0
    )


@renamed_arguments(axis="feature_axes")
def mean_normalize(
    x: ArrayLike, summary: Summary, feature_axes: Axis = -1
) -> Float[Array, "..."]:
    """Scales `x` so that the data summarised have mean 0 and a range of width 1.

        y = (x − μ)/(max − min)

    So y lies between −1 and 1, on both sides of 0, and not between 0 and 1 as is said of
    it at times: `min_max` does that. The arguments and errors are those of `standardize`,
    and so is a y of 0 where a feature is constant or was never seen.

    >>> from jaxnorm import summarize
    >>> x = jnp.array([[1.0], [2.0], [9.0]])
    >>> mean_normalize(x, summarize(x)).T
    Array([[-0.375, -0.25 ,  0.625]], dtype=float32)
    """
    return _by_width(x, summary, feature_axes, about_mean=True)


@renamed_arguments(axis="feature_axes")
def min_max(x: ArrayLike, summary: Summary, feature_axes: Axis = -1) -> Float[Array, "..."]:
    """Scales `x` so that the data summarised lie between 0 and 1.

        y = (x − min)/(max − min)

    Other data may lie outside. The arguments and errors are those of `standardize`, and so
    is a y of 0 where a feature is constant or was never seen.

    Source: scikit-learn's MinMaxScaler, which differs in dividing a constant by 1.

    >>> from jaxnorm import summarize
    >>> x = jnp.array([[1.0], [2.0], [9.0]])
    >>> min_max(x, summarize(x)).T
    Array([[0.   , 0.125, 1.   ]], dtype=float32)
    """
    return _by_width(x, summary, feature_axes, about_mean=False)


def _by_width(
    x: ArrayLike, summary: Summary, feature_axes: Axis, *, about_mean: bool
) -> Array:
    """(x − μ)/(max − min), or with min in place of μ; 0 where there is no width."""
    x, axes = _check_operands(x, summary, feature_axes)
    wide = accumulation_dtype(x.dtype)
    mean, low, high = (
        expand(jnp.asarray(each).astype(wide), axes, x.ndim)
        for each in (summary.moments.mean, summary.minimum, summary.maximum)
    )
    offset = mean if about_mean else low
    width = high - low
    alike = width <= 0  # −∞ where nothing was seen; and not NaN, which is to show
    # As for a variance, an overflow is not taken for a range in which nothing differs.
    width = jnp.where(jnp.isposinf(width), jnp.nan, width)
    # Nothing is divided by 0, nor subtracted an infinite minimum; and NaN in x shows.
    centred = x.astype(wide) - jnp.where(alike, 0, offset)
    return (centred / jnp.where(alike, jnp.inf, width)).astype(x.dtype)


def _check_operands(
    x: ArrayLike, summary: Any, feature_axes: Axis
) -> tuple[Array, tuple[int, ...]]:
    """The array x, and its feature axes, which are those of the summary."""
    x = as_floating(x)
    check_summary(summary)
    axes = canonical_axes(feature_axes, x.ndim)
    if jnp.shape(summary.minimum) != take(x.shape, axes):
        raise ValueError(
            f"the summary is of features of shape {jnp.shape(summary.minimum)}, but x, of "
            f"shape {x.shape}, has {take(x.shape, axes)} along "
            f"feature_axes={feature_axes}; name in feature_axes= the "
            "axes of x along which the data were summarised."
        )
    return x, axes
