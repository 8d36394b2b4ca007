"""Groups without spatial axes: each feature has one value, so that each group is a row."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.layouts import is_symbolic
from jaxnorm._core.measurement import Samples
from jaxnorm._core.operands import varies
from jaxnorm._core.residuals import keeping_only_x
from jaxnorm._core.sharding import is_sharded
from jaxnorm.norms._own_moments import Plan, normalize_and_measure


def normalize_rows(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    how: Plan,
) -> Array:
    """Normalises x, measuring each group as a row.

    Elsewhere each feature is measured, and its moments are merged with those of its group;
    here there would be as many moments as values.
    """
    groups = how.samples.groups
    assert groups is not None
    features, rear = how.features, tuple(range(-len(how.features), 0))
    moved = jnp.moveaxis(x, features, rear)
    split = (*moved.shape[: x.ndim - len(features)], groups.number, -1)
    rows = moved.reshape(split)

    def as_rows(array: Array) -> Array:
        moved = jnp.moveaxis(array, features, rear)
        return moved.reshape(*moved.shape[: x.ndim - len(features)], groups.number, -1)

    def by_group(vector: ArrayLike | None) -> Array | None:
        if vector is None or not varies(vector, x.ndim, features):
            return None if vector is None else jnp.reshape(vector, split[-2:])
        of = jnp.asarray(vector)
        shape = (n if i in features else of.shape[i] for i, n in enumerate(x.shape))
        return as_rows(jnp.broadcast_to(of, tuple(shape)))

    per_sample = any(varies(each, x.ndim, features) for each in (scale, bias))
    scale, bias = by_group(scale), by_group(bias)
    if weights is not None:
        weights = as_rows(jnp.broadcast_to(weights, x.shape))
    if features == (x.ndim - 1,) and not per_sample and _has_tiles(rows):
        y = _normalize_by_platform(rows, scale, bias, weights, how)
    else:
        y = _normalize(rows, scale, bias, weights, how)
    return jnp.moveaxis(y.reshape(moved.shape), rear, features)


@functools.partial(jax.jit, static_argnums=4, inline=True)
@functools.partial(keeping_only_x, static_argnums=4)
def _normalize_by_platform(
    rows: Array,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    how: Plan,
) -> Array:
    return lax.platform_dependent(
        rows,
        scale,
        bias,
        weights,
        tpu=functools.partial(_normalize_in_tiles, how=how),
        default=functools.partial(_normalize, how=how),
    )


def _normalize(
    rows: Array,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    how: Plan,
    reduced: tuple[int, ...] = (-1,),
    features: tuple[int, ...] = (-2, -1),
) -> Array:
    reduced, features = (
        tuple(axis % rows.ndim for axis in axes) for axes in (reduced, features)
    )
    how = how._replace(samples=Samples(reduced), features=features)
    # XLA for a GPU would not make this one kernel, which `normalize_by_own` relies on.
    return normalize_and_measure(rows, scale, bias, weights, how)[0]


def _normalize_in_tiles(
    rows: Array,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    how: Plan,
) -> Array:
    """`_normalize` on the tiles of 8 × 128 in which a TPU stores an array.

    In the shape (rows/8, groups, tiles of a group, 8, 128), no data moves. In the shape
    (rows, groups, features of a group), x would be copied, and its moments as well, once
    for each feature.
    """
    *rest, number, groups, size = rows.shape
    tiles = (*rest, number // 8, 8, groups, size // 128, 128)
    vectors = (groups, size // 128, 128)

    def tiled(each: Array | None) -> Array | None:
        return None if each is None else jnp.moveaxis(each.reshape(tiles), -4, -2)

    scale, bias = (
        None if each is None else each.reshape(vectors) for each in (scale, bias)
    )
    x = tiled(rows)
    assert x is not None
    y = _normalize(x, scale, bias, tiled(weights), how, (-3, -1), (-4, -3, -1))
    return jnp.moveaxis(y, -2, -4).reshape(rows.shape)


def _has_tiles(rows: Array) -> bool:
    if is_symbolic(rows.shape) or is_sharded(rows) or rows.ndim < 3:
        return False
    number, _, size = rows.shape[-3:]
    return number % 8 == 0 and size % 128 == 0
