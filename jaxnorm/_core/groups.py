"""Groups of features, which share their moments."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnorm._core.axes import sizes_of
from jaxnorm._core.moments import Moments, pool, total_of_few
from jaxnorm._core.sharding import gathered, is_sharded, placed_as, shards_along


class Groups(NamedTuple):
    """Equal-sized groups of consecutive features along some axes of an array.

    Attributes:
      axes: the feature axes, taken together.
      number: the number of groups.
    """

    axes: tuple[int, ...]
    number: int


def split(vector: Float[Array, "..."], groups: Groups) -> Float[Array, "... groups size"]:
    """Reshapes `vector` to (..., groups, features of a group).

    >>> split(jnp.arange(4.0).reshape(1, 4), Groups((1,), 2))
    Array([[[0., 1.],
            [2., 3.]]], dtype=float32)
    """
    rear = range(-len(groups.axes), 0)
    rest = tuple(n for i, n in enumerate(vector.shape) if i not in groups.axes)
    size = math.prod(sizes_of(vector.shape, groups.axes)) // groups.number
    return jnp.moveaxis(vector, groups.axes, rear).reshape(*rest, groups.number, size)


def spread(
    grouped: Float[Array, "... groups"], groups: Groups, sizes: tuple[int, ...]
) -> Float[Array, "..."]:
    """Repeats the value of each group for all its features, whose axes have these sizes.

    >>> spread(jnp.array([[0.5, 2.5]]), Groups((1,), 2), sizes=(4,))
    Array([[0.5, 0.5, 2.5, 2.5]], dtype=float32)
    """
    size = math.prod(sizes) // groups.number
    rows = jnp.broadcast_to(grouped[..., None], (*grouped.shape, size))
    row = rows.reshape(*grouped.shape[:-1], *sizes)
    return jnp.moveaxis(row, range(-len(sizes), 0), groups.axes)


def share(moments: Moments, groups: Groups) -> Moments:
    """Merges the moments of the features of each group."""
    sizes = sizes_of(moments.mean.shape, groups.axes)
    parts = (split(_in_whole_groups(each, groups), groups) for each in moments)
    pooled = (spread(each, groups, sizes) for each in pool(Moments(*parts), -1))
    return Moments(*map(placed_as, pooled, moments))


def total_of_groups(vector: Float[Array, "..."], groups: Groups) -> Float[Array, "..."]:
    """Sums over each group, and repeats the sum for all its features."""
    sizes = sizes_of(vector.shape, groups.axes)
    rows = split(_in_whole_groups(vector, groups), groups)
    total = total_of_few(rows, (rows.ndim - 1,))[..., 0]
    return placed_as(spread(total, groups, sizes), vector)


def _in_whole_groups(vector: Array, groups: Groups) -> Array:
    """Gathers `vector` if a group spans several devices: explicit meshes reject that."""
    first, *others = groups.axes
    if groups.number % shards_along(vector, first) or is_sharded(vector, tuple(others)):
        return gathered(vector, groups.axes)
    return vector
