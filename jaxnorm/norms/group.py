"""Group normalisation (Wu & He 2018)."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm.axes import (
    Axis,
    canonical_axes,
    check_samples,
    complement,
    count_groups,
    positions,
    take,
)
from jaxnorm.masking import as_weights
from jaxnorm.measurement import measure
from jaxnorm.moments import Moments, pool, synchronize
from jaxnorm.normalization import Rounding, normalize
from jaxnorm.precision import as_operand


def group_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_groups: int | None = 32,
    group_size: int | None = None,
    axis: Axis = -1,
    reduced: Axis | None = None,
    epsilon: float = 1e-6,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Normalises each sample by its moments over the positions and a group of features.

        y = γ·(x − μ)/√(σ² + ε) + β

    Args:
      x: floating array of any rank.
      scale: γ, of the shape of the axes `axis` of x; None is 1.
      bias: β, likewise; None is 0.
      num_groups: into how many groups the features are split, in their order.
      group_size: how many features a group has, in place of num_groups, then None.
      axis: the feature axis or axes, over which scale and bias vary.
      reduced: the axes of the positions, over which the moments are taken besides the
        features of a group; None is all but the first, which is the batch, and those of
        the features.
      epsilon: ε ≥ 0, added to the variance.
      weights: boolean mask or non-negative weights that broadcast against x. What has
        weight 0 counts in no moment; see `normalize` for its output.
      axis_name: mapped axes (of vmap, pmap, shard_map) along which samples are split.
      axis_index_groups: groups of indices along axis_name that are one sample each.
      dtype: the dtype of y; None is that of x.
      rounding: where y is rounded to its dtype; see `normalize`.

    Returns:
      y, in the shape of x.

    Raises:
      TypeError: x is not real floating.
      ValueError: an axis is out of range, repeated, or both reduced and of features; the
        features do not divide into the groups; scale, bias or weights do not fit x;
        epsilon is negative; groups have a single value, and the output would be β.

    Source: Wu & He 2018, "Group Normalization" (arXiv:1803.08494), equations 1, 2 and 7.
    With one group it is layer normalisation of the whole sample, with as many groups as
    features instance normalisation.

    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])  # one sample
    >>> group_norm(x, num_groups=2, epsilon=0.0)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(axis, x.ndim)
    reduced = positions(x.shape, features, reduced)
    channels = take(x.shape, features)
    groups = count_groups(math.prod(channels), num_groups, group_size)
    if groups == math.prod(channels):
        check_samples(x.shape, reduced, mapped=axis_name is not None)
    if weights is not None:
        weights = as_weights(weights, x)

    # On a CPU, XLA is several times slower to reduce positions and a group's features at
    # once than positions alone, after which few moments are left to merge.
    moments = measure(x, reduced, weights)
    kept = complement(reduced, x.ndim)
    places = tuple(kept.index(each) for each in features)
    grouped = _split(moments, places, groups)
    grouped = synchronize(pool(grouped, -1), axis_name, axis_index_groups)
    return normalize(
        x,
        _spread(grouped, places, channels),
        scale,
        bias,
        reduced=reduced,
        features=features,
        epsilon=epsilon,
        weights=weights,
        dtype=dtype,
        rounding=rounding,
    )


def _split(moments: Moments, axes: tuple[int, ...], groups: int) -> Moments:
    """Moments whose features are on these axes, as (..., groups, features of a group)."""

    def split(each: Array) -> Array:
        each = jnp.moveaxis(each, axes, range(-len(axes), 0))
        return each.reshape(*each.shape[: each.ndim - len(axes)], groups, -1)

    return Moments(*map(split, moments))


def _spread(moments: Moments, axes: tuple[int, ...], channels: tuple[int, ...]) -> Moments:
    """Moments of shape (..., groups), given to each feature of a group, on these axes."""

    def spread(each: Array) -> Array:
        size = math.prod(channels) // each.shape[-1]
        each = jnp.repeat(each, size, -1).reshape(*each.shape[:-1], *channels)
        return jnp.moveaxis(each, range(-len(axes), 0), axes)

    return Moments(*map(spread, moments))
