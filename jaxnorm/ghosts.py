"""Ghost batches: parts of a batch that are each normalised by themselves."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnorm.moments import Moments, merge, pool


def check_ghost_size(size: Any) -> None:
    """Raises a TypeError unless the size is None or an integer, a ValueError below 1."""
    if size is None:
        return
    try:
        number = operator.index(size)
    except TypeError:
        raise TypeError(
            f"ghost_size={size!r}, but the number of samples of a ghost batch is expected, "
            "an integer; None makes no ghosts."
        ) from None
    if number < 1:
        raise ValueError(
            f"ghost_size={size}, but a ghost batch has at least 1 sample; None makes no "
            "ghosts."
        )


def ghost_sizes(samples: int, size: int) -> list[tuple[int, int]]:
    """How many ghosts are of which size: as many as have `size` samples, and all are used.

    What remains is shared out, so that no ghost is smaller: sizes differ by at most one.

    >>> ghost_sizes(11, 4), ghost_sizes(12, 4), ghost_sizes(3, 4)
    ([(1, 6), (1, 5)], [(3, 4)], [(1, 3)])
    """
    number = max(1, samples // size)
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
    outputs, moments, start = [], [], 0
    for number, each in ghost_sizes(x.shape[axis], size):
        parts = _split(x, axis, start, number, each)
        parted = weights if mapped is None else _split(weights, axis, start, number, each)
        y, of_ghosts = jax.vmap(function, (axis, mapped), (axis, 0))(parts, parted)
        outputs.append(y.reshape(*x.shape[:axis], number * each, *x.shape[axis + 1 :]))
        moments.append(pool(of_ghosts, 0))
        start += number * each
    return jnp.concatenate(outputs, axis), merge(*moments)


def _split(array: Any, axis: int, start: int, number: int, size: int) -> Array:
    """The part from `start` on, with an axis of ghosts before that of their samples."""
    part = jax.lax.slice_in_dim(array, start, start + number * size, axis=axis)
    return part.reshape(*array.shape[:axis], number, size, *array.shape[axis + 1 :])
