"""Ghost batches: parts of a batch, each normalised by itself."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.axes import is_multiple
from jaxnorm._core.moments import Moments, merge, pool, synchronize
from jaxnorm._core.sharding import gathered, placed_as, shards_along
from jaxnorm.norms._own_moments import Plan, normalize_and_measure


def ghost_sizes(samples: Any, size: int) -> list[tuple[Any, Any]]:
    """Returns (number of ghosts, their size) pairs that use all samples.

    Samples left over are shared out, so that no ghost has fewer than `size` and sizes
    differ by at most one. A symbolic number of samples must be a multiple of `size`, as
    otherwise it is unknown how many are left over; a ValueError is raised for any other.

    >>> ghost_sizes(11, 4), ghost_sizes(12, 4), ghost_sizes(3, 4)
    ([(1, 6), (1, 5)], [(3, 4)], [(1, 3)])
    """
    if not isinstance(samples, int) and not is_multiple(samples, size):
        raise ValueError(
            f"ghost_size={size}, but x has the symbolic number of samples {samples}, so "
            "the number of ghost batches is unknown; export with a fixed number of "
            f"samples, or with a multiple of ghost_size, as in '{size}*n', or without "
            "ghost_size."
        )
    number = max(samples // size, 1)
    least, larger = divmod(samples, number)
    return [each for each in ((larger, least + 1), (number - larger, least)) if each[0]]


def normalize_ghosts(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    how: Plan,
    size: int,
) -> tuple[Array, Moments]:
    """Normalises each ghost by its own moments; also returns those of the whole batch.

    The samples lie along the first reduced axis.
    """
    alone = how._replace(axis_name=None, axis_index_groups=None)

    def normalize(x: Array, scale: Any, bias: Any, weights: Any) -> tuple[Array, Moments]:
        return normalize_and_measure(x, scale, bias, weights, alone)

    scale, bias = (None if each is None else jnp.asarray(each) for each in (scale, bias))
    y, moments = _by_ghosts(normalize, x, (scale, bias, weights), how.samples.axes[0], size)
    return y, synchronize(moments, how.axis_name, how.axis_index_groups)


def _by_ghosts(
    function: Callable[..., tuple[Array, Moments]],
    x: Array,
    others: Sequence[Array | None],
    axis: int,
    size: int,
) -> tuple[Array, Moments]:
    """Applies `function(x, *others)` to each ghost; joins outputs and merges moments.

    Args:
      function: returns the output and the moments of a ghost.
      x: the batch.
      others: scale, bias and weights (or None), split if they vary along the axis.
      axis: the axis of the samples, split as `ghost_sizes` determines.
      size: the number of samples per ghost.
    """
    split = [
        each is not None and each.ndim == x.ndim and each.shape[axis] != 1
        for each in others
    ]
    place, sizes = x, ghost_sizes(x.shape[axis], size)
    if len(sizes) > 1 or sizes[0][0] % shards_along(x, axis):
        # A ghost would span several devices, and a shard cannot be cut.
        x = gathered(x, (axis,))
        others = [
            gathered(each, (axis,)) if is_split else each
            for each, is_split in zip(others, split, strict=True)
        ]
    outputs, moments, start = [], [], 0
    for number, each in sizes:
        parts = _split(x, axis, start, number, each)
        parted = [
            _split(other, axis, start, number, each) if is_split else other
            for other, is_split in zip(others, split, strict=True)
        ]
        mapped = (axis, *(axis if is_split else None for is_split in split))
        y, of_ghosts = jax.vmap(function, mapped, (axis, 0))(parts, *parted)
        outputs.append(y.reshape(*x.shape[:axis], number * each, *x.shape[axis + 1 :]))
        moments.append(pool(of_ghosts, 0))
        start += number * each
    return placed_as(jnp.concatenate(outputs, axis), place), merge(*moments)


def _split(array: Any, axis: int, start: int, number: Any, size: Any) -> Array:
    """The part from `start` on, with an axis of ghosts before the axis of their samples."""
    part = jax.lax.slice_in_dim(array, start, start + number * size, axis=axis)
    return part.reshape(*array.shape[:axis], number, size, *array.shape[axis + 1 :])
