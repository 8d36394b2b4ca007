"""Scales inputs by the moments or the range of their data set."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, complement, expand, sizes_of
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import accumulation_dtype, as_floating
from jaxnorm._core.normalization import normalize
from jaxnorm.preprocessing.summary import Summary, check_summary


@renamed_arguments(axis="feature_axes")
def standardize(
    x: ArrayLike, summary: Summary, feature_axes: Axis = -1
) -> Float[Array, "..."]:
    """Scales `x` so that the summarised data have mean 0 and variance 1.

        y = (x − μ)/σ

    σ² is the biased variance, Σ(x − μ)²/n. The shape of the distribution does
    not change: it is normal only if x is. Where a feature is constant or was never seen, y
    is 0.

    Args:
      x: floating array of any rank.
      summary: the Summary of the data, with the shape of the feature axes of x.
      feature_axes: the feature axis or axes.

    Returns:
      y, with the shape and dtype of x; 16-bit inputs are computed in float32.

    Raises:
      TypeError: x does not have a real floating dtype, or summary is not a Summary.
      ValueError: an axis is out of range or repeated; the summary does not have the shape
        of the feature axes.

    Source: scikit-learn's StandardScaler, which instead divides a constant by 1.

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
    """Scales `x` so that the summarised data have mean 0 and a range of width 1.

        y = (x − μ)/(max − min)

    So y lies between −1 and 1, on both sides of 0, and not between 0 and 1 as is sometimes
    claimed: `min_max` does that. The arguments and errors are the same as for
    `standardize`; where a feature is constant or was never seen, y is 0.

    >>> from jaxnorm import summarize
    >>> x = jnp.array([[1.0], [2.0], [9.0]])
    >>> mean_normalize(x, summarize(x)).T
    Array([[-0.375, -0.25 ,  0.625]], dtype=float32)
    """
    return _by_width(x, summary, feature_axes, about_mean=True)


@renamed_arguments(axis="feature_axes")
def min_max(x: ArrayLike, summary: Summary, feature_axes: Axis = -1) -> Float[Array, "..."]:
    """Scales `x` so that the summarised data lie between 0 and 1.

        y = (x − min)/(max − min)

    Other data may lie outside. The arguments and errors are the same as for `standardize`;
    where a feature is constant or was never seen, y is 0.

    Source: scikit-learn's MinMaxScaler, which instead divides a constant by 1.

    >>> from jaxnorm import summarize
    >>> x = jnp.array([[1.0], [2.0], [9.0]])
    >>> min_max(x, summarize(x)).T
    Array([[0.   , 0.125, 1.   ]], dtype=float32)
    """
    return _by_width(x, summary, feature_axes, about_mean=False)


def _by_width(
    x: ArrayLike, summary: Summary, feature_axes: Axis, *, about_mean: bool
) -> Array:
    """(x − μ)/(max − min), or with min in place of μ; 0 where max ≤ min."""
    x, axes = _check_operands(x, summary, feature_axes)
    wide = accumulation_dtype(x.dtype)
    mean, low, high = (
        expand(jnp.asarray(each).astype(wide), axes, x.ndim)
        for each in (summary.moments.mean, summary.minimum, summary.maximum)
    )
    offset = mean if about_mean else low
    width = high - low
    alike = width <= 0  # −∞ where nothing was seen; False for NaN, which must show in y
    # As for a variance, an overflow is not mistaken for a range without differences.
    width = jnp.where(jnp.isposinf(width), jnp.nan, width)
    # Avoids division by 0 and subtraction of an infinite minimum, and keeps NaN in x.
    centred = x.astype(wide) - jnp.where(alike, 0, offset)
    return (centred / jnp.where(alike, jnp.inf, width)).astype(x.dtype)


def _check_operands(
    x: ArrayLike, summary: Any, feature_axes: Axis
) -> tuple[Array, tuple[int, ...]]:
    """Returns x as an array and its feature axes, checked against the summary."""
    x = as_floating(x)
    check_summary(summary)
    axes = canonical_axes(feature_axes, x.ndim)
    if jnp.shape(summary.minimum) != sizes_of(x.shape, axes):
        raise ValueError(
            f"the summary has features of shape {jnp.shape(summary.minimum)}, but x, of "
            f"shape {x.shape}, has {sizes_of(x.shape, axes)} along "
            f"feature_axes={feature_axes}; pass as feature_axes= the axes of x for which "
            "the data were summarised."
        )
    return x, axes
