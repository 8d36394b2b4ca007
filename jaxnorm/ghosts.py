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


def by_ghosts(
    function: Callable[[Array, Any], tuple[Array, Moments]],
    x: Array,
    weights: Array | None,
    axis: int,
    size: int,
) -> tuple[Array, Moments]:
    """What `function(x, weights)` makes of each ghost; outputs in a row, moments merged.

    The samples along `axis` are split into as many ghosts as have `size` of them. What
    remains is shared out, so that no ghost is smaller: sizes differ by at most one.
    """
    mapped = None if weights is None or weights.shape[axis] == 1 else axis

    def of_part(start: int, number: int, size: int) -> tuple[Array, Moments]:
        def split(array: Array) -> Array:
            part = jax.lax.slice_in_dim(array, start, start + number * size, axis=axis)
            shape = (*part.shape[:axis], number, size, *part.shape[axis + 1 :])
            return part.reshape(shape)

        parts = weights if weights is None or mapped is None else split(weights)
        y, moments = jax.vmap(function, (axis, mapped), (axis, 0))(split(x), parts)
        shape = (*x.shape[:axis], number * size, *x.shape[axis + 1 :])
        return y.reshape(shape), pool(moments, 0)

    samples = x.shape[axis]
    number = max(1, samples // size)
    least, larger = divmod(samples, number)
    parts = [of_part(0, larger, least + 1)] if larger else []
    parts.append(of_part(larger * (least + 1), number - larger, least))
    outputs, moments = zip(*parts, strict=True)
    return jnp.concatenate(outputs, axis), merge(*moments)
