"""Which axes a norm reduces, over which its scale and bias vary, and their errors.

Everything here looks at shapes alone, so that whatever does not fit is refused
before anything is computed.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

Axis = int | Sequence[int]


def canonical_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """`axis` as sorted, non-negative axes of an array of rank `ndim`.

    Raises a ValueError for an axis out of range or given twice, a TypeError for one that
    is no integer.

    >>> canonical_axes((-1, 1), ndim=4)
    (1, 3)
    """
    try:
        given = [operator.index(each) for each in _as_sequence(axis)]
    except TypeError:
        raise TypeError(
            f"axis={axis!r}, but an integer, or a tuple of integers, is expected; -1 is "
            "the last axis."
        ) from None
    axes = []
    for each in given:
        if not -ndim <= each < ndim:
            raise ValueError(
                f"axis {each} is out of range for an array of rank {ndim}; "
                + (
                    f"give axes from {-ndim} to {ndim - 1}."
                    if ndim
                    else "it has no axis to normalise: give it at least one."
                )
            )
        axes.append(each % ndim)
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"axis={axis} names an axis of an array of rank {ndim} more than once; "
            "name each axis once."
        )
    return tuple(sorted(axes))


def _as_sequence(axis: Axis) -> Sequence[int]:
    return axis if isinstance(axis, Sequence) else (axis,)


def complement(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes of an array of rank `ndim` that are not in `axes`.

    >>> complement((1,), ndim=4)
    (0, 2, 3)
    """
    return tuple(each for each in range(ndim) if each not in axes)


def take(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of `axes`: the shape of an array that varies over these axes only.

    >>> take((32, 28, 28, 64), axes=(3,))
    (64,)
    """
    return tuple(shape[each] for each in axes)


def expand(
    array: Shaped[Array, "..."], axes: tuple[int, ...], ndim: int
) -> Shaped[Array, "..."]:
    """`array`, whose axes are the `axes` of a larger one, with size-1 axes between.

    The result has rank `ndim` and broadcasts against the larger array.

    >>> expand(jnp.ones(64), axes=(1,), ndim=4).shape
    (1, 64, 1, 1)
    """
    return jnp.expand_dims(array, complement(axes, ndim))


def check_features(shape: tuple[int, ...], **arrays: Any) -> None:
    """Raises a ValueError unless each named array (or None) has exactly this shape.

    Exactly: a scale of shape (1,) would broadcast, and hide a mistake in the axis.
    """
    for name, array in arrays.items():
        if array is not None and jnp.shape(array) != shape:
            raise ValueError(
                f"{name} has shape {jnp.shape(array)}, but the features of x have "
                f"shape {shape}; give {name} the shape {shape}, or name the axes of x "
                "that it belongs to with axis=."
            )


def check_samples(
    shape: tuple[int, ...], reduced: tuple[int, ...], *, mapped: bool
) -> None:
    """Raises a ValueError if an array of this shape has no samples to take moments of.

    `mapped` says that there are more along an axis of vmap, pmap or shard_map.
    """
    if not reduced and not mapped:
        raise ValueError(
            f"x has shape {shape}, and all its axes are features, so that there is no "
            "batch to take moments of; give x a batch axis, or name fewer axes in axis=."
        )
    if 0 in take(shape, reduced):
        raise ValueError(
            f"x has shape {shape}, so there is no sample along its axes {reduced} to "
            "take moments of; skip the empty batch, or use weights of 0 for padding."
        )


def check_weights(shape: tuple[int, ...], weights: Any) -> None:
    """Raises a ValueError unless the weights (or None) broadcast to `shape`."""
    if weights is None:
        return
    try:
        fits = jnp.broadcast_shapes(jnp.shape(weights), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"the weights (or mask) have shape {jnp.shape(weights)}, which does not "
            f"broadcast to the shape {shape} of x; add axes of size 1, as in "
            "weights[..., None] for one value a position."
        )
