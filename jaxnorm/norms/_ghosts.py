"""Ghost batches: parts of a batch that are each normalised by themselves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnorm._core.axes import gathered, is_multiple, placed_as, shards_along
from jaxnorm._core.moments import Moments, merge, pool


def ghost_sizes(samples: Any, size: int) -> list[tuple[Any, Any]]:
    """How many ghosts are of which size: as many as have `size` samples, and all are used.

    What remains is shared out, so that no ghost is smaller: sizes differ by at most one.
    Of a symbolic number of samples only a multiple of `size` is known to have none left
    over; a ValueError is raised for any other.

    >>> ghost_sizes(11, 4), ghost_sizes(12, 4), ghost_sizes(3, 4)
    ([(1, 6), (1, 5)], [(3, 4)], [(1, 3)])
    """
    if not isinstance(samples, int) and not is_multiple(samples, size):
        raise ValueError(
            f"ghost_size={size}, but x has the symbolic number of samples {samples}, of "
            "which it is not known how many ghosts they make; export with a number of "
            f"samples, or with a multiple of the ghosts' size, as in '{size}*n', or "
            "without ghost_size."
        )
    number = max(samples // size, 1)
    least, larger = divmod(samples, number)
    return [each for each in ((larger, least + 1), (number - larger, least)) if each[0]]


def by_ghosts(
    function: Callable[[Array, Any], tuple[Array, Moments]],
    x: Array,
    weights: Array | None,
    axis: int,
    size: int,
) -> tuple[Array, Moments]:
    """What `function(x, weights)` makes of each ghost; outputs in a row, moments merged.

    The samples lie along `axis`; a ghost has as many as `ghost_sizes` says.
    """
    mapped = None if weights is None or weights.shape[axis] == 1 else axis
    place, sizes = x, ghost_sizes(x.shape[axis], size)
    if len(sizes) > 1 or sizes[0][0] % shards_along(x, axis):
        # Ghosts lie on several devices, and a shard cannot be cut.
        x = gathered(x, (axis,))
        weights = weights if mapped is None else gathered(weights, (axis,))
    outputs, moments, start = [], [], 0
    for number, each in sizes:
        parts = _split(x, axis, start, number, each)
        parted = weights if mapped is None else _split(weights, axis, start, number, each)
        y, of_ghosts = jax.vmap(function, (axis, mapped), (axis, 0))(parts, parted)
        outputs.append(y.reshape(*x.shape[:axis], number * each, *x.shape[axis + 1 :]))
        moments.append(pool(of_ghosts, 0))
        start += number * each
    return placed_as(jnp.concatenate(outputs, axis), place), merge(*moments)


def _split(array: Any, axis: int, start: int, number: Any, size: Any) -> Array:
    """The part from `start` on, with an axis of ghosts before that of their samples."""
    part = jax.lax.slice_in_dim(array, start, start + number * size, axis=axis)
    return part.reshape(*array.shape[:axis], number, size, *array.shape[axis + 1 :])
