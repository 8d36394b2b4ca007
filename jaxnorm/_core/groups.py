"""Groups of features: the same moments for all features of a group."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnorm._core.axes import gathered, is_sharded, placed_as, shards_along, take
from jaxnorm._core.moments import Moments, pool, total_of_few


class Groups(NamedTuple):
    """The features on some axes of an array, in their order, in groups of one size.

    Attributes:
      axes: the feature axes, together.
      number: how many groups they are split into.
    """

    axes: tuple[int, ...]
    number: int


def split(vector: Float[Array, "..."], groups: Groups) -> Float[Array, "... groups size"]:
    """`vector` with its features in a row, as (..., groups, features of a group).

    >>> split(jnp.arange(4.0).reshape(1, 4), Groups((1,), 2))
    Array([[[0., 1.],
            [2., 3.]]], dtype=float32)
    """
    rear = range(-len(groups.axes), 0)
    rest = tuple(n for i, n in enumerate(vector.shape) if i not in groups.axes)
    size = math.prod(take(vector.shape, groups.axes)) // groups.number
    return jnp.moveaxis(vector, groups.axes, rear).reshape(*rest, groups.number, size)


def spread(
    grouped: Float[Array, "... groups"], groups: Groups, sizes: tuple[int, ...]
) -> Float[Array, "..."]:
    """The value of each group for all its features, whose axes have these sizes.

    >>> spread(jnp.array([[0.5, 2.5]]), Groups((1,), 2), sizes=(4,))
    Array([[0.5, 0.5, 2.5, 2.5]], dtype=float32)
    """
    size = math.prod(sizes) // groups.number
    rows = jnp.broadcast_to(grouped[..., None], (*grouped.shape, size))
    row = rows.reshape(*grouped.shape[:-1], *sizes)
    return jnp.moveaxis(row, range(-len(sizes), 0), groups.axes)


def share(moments: Moments, groups: Groups) -> Moments:
    """The moments of each feature merged with those of its group."""
    sizes = take(moments.mean.shape, groups.axes)
    parts = (split(_in_whole_groups(each, groups), groups) for each in moments)
    pooled = (spread(each, groups, sizes) for each in pool(Moments(*parts), -1))
    return Moments(*map(placed_as, pooled, moments))


def total_of_groups(vector: Float[Array, "..."], groups: Groups) -> Float[Array, "..."]:
    """The sum of each group, for all its features."""
    sizes = take(vector.shape, groups.axes)
    rows = split(_in_whole_groups(vector, groups), groups)
    total = total_of_few(rows, (rows.ndim - 1,))[..., 0]
    return placed_as(spread(total, groups, sizes), vector)


def _in_whole_groups(vector: Array, groups: Groups) -> Array:
    """`vector` with no group on several devices of an explicit mesh, where JAX asks how."""
    first, *others = groups.axes
    if groups.number % shards_along(vector, first) or is_sharded(vector, tuple(others)):
        return gathered(vector, groups.axes)
    return vector
