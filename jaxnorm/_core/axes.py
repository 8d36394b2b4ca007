"""The axes that a norm reduces, the axes over which scale and bias vary, and their checks.

Everything here looks at shapes only, so that operands that do not fit are rejected before
anything is computed.
"""

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

Axis = int | Sequence[int]
Shape = tuple[Any, ...]  # of ints, or of symbolic dimensions


def canonical_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Returns `axis` as sorted, non-negative axes of an array of rank `ndim`.

    Raises a ValueError for an axis that is out of range or given twice, and a TypeError for
    one that is not an integer.

    >>> canonical_axes((-1, 1), ndim=4)
    (1, 3)
    """
    try:
        given = [operator.index(each) for each in _as_sequence(axis)]
    except TypeError:
        raise TypeError(
            f"axis={axis!r}, but an integer, or a tuple of integers, is expected; for the "
            "last axis, give -1."
        ) from None
    axes = []
    for each in given:
        if not -ndim <= each < ndim:
            raise ValueError(
                f"axis {each} is out of range for an array of rank {ndim}; "
                + (
                    f"give axes from {-ndim} to {ndim - 1}."
                    if ndim
                    else "it has no axis to normalise: give an array with at least one."
                )
            )
        axes.append(each % ndim)
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"axis={axis} names an axis of an array of rank {ndim} more than once; "
            "name each axis once."
        )
    return tuple(sorted(axes))


def _as_sequence(axis: Any) -> Sequence[Any]:
    try:
        return tuple(axis)
    except TypeError:
        return (axis,)


def complement(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Returns the axes of an array of rank `ndim` that are not in `axes`.

    >>> complement((1,), ndim=4)
    (0, 2, 3)
    """
    return tuple(each for each in range(ndim) if each not in axes)


def sizes_of(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Returns the sizes of `axes`: the shape of an array that varies over these only.

    >>> sizes_of((32, 28, 28, 64), axes=(3,))
    (64,)
    """
    return tuple(shape[each] for each in axes)


def expand(
    array: Shaped[Array, "..."], axes: tuple[int, ...], ndim: int
) -> Shaped[Array, "..."]:
    """Inserts size-1 axes into `array`, whose axes are the `axes` of a larger array.

    The result has rank `ndim` and broadcasts against the larger array.

    >>> expand(jnp.ones(64), axes=(1,), ndim=4).shape
    (1, 64, 1, 1)
    """
    return jnp.expand_dims(array, complement(axes, ndim))


def is_multiple(size: Any, of: int) -> bool:
    """Whether a size is a multiple of a number; if symbolic, whether it always is.

    >>> is_multiple(64, of=16), is_multiple(64, of=10)
    (True, False)
    """
    rest = size % of
    return isinstance(rest, int) and rest == 0


def count_groups(channels: Any, num_groups: int | None, group_size: int | None) -> int:
    """Returns the number of groups, from either num_groups or group_size.

    Raises a ValueError unless exactly one is not None and divides the channels.

    >>> count_groups(64, num_groups=None, group_size=16)
    4
    """
    if (num_groups is None) == (group_size is None):
        raise ValueError(
            f"num_groups={num_groups} and group_size={group_size}, but exactly one is "
            "expected; give one, and None for the other."
        )
    name, given = (
        ("num_groups", num_groups) if group_size is None else ("group_size", group_size)
    )
    try:
        divisor = operator.index(given)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name}={given!r}, but an integer is expected.") from None
    if not isinstance(channels, int | np.integer):
        raise ValueError(
            f"the features have the symbolic size {channels}, so they cannot be split into "
            f"groups by {name}={given}; export with a fixed number of features, and leave "
            "the sizes of the batch and of spatial axes symbolic."
        )
    channels = int(channels)
    if divisor < 1 or channels % divisor:
        divisors = [each for each in range(1, channels + 1) if channels % each == 0]
        raise ValueError(
            f"{name}={given} does not divide the {channels} channels; give one of "
            f"{divisors}."
        )
    return divisor if group_size is None else channels // divisor


def spatial_axes(
    shape: Shape, features: tuple[int, ...], reduction_axes: Axis | None
) -> tuple[int, ...]:
    """Returns the axes over which each feature of each sample is reduced.

    Defaults to all axes except the first, which is the batch, and the feature axes.
    Raises a ValueError if a reduction axis is a feature axis, or if, by default, the first
    axis is one.

    >>> spatial_axes((8, 28, 28, 3), features=(3,), reduction_axes=None)
    (1, 2)
    """
    if reduction_axes is not None:
        axes = canonical_axes(reduction_axes, len(shape))
        both = [each for each in axes if each in features]
        if both:
            raise ValueError(
                f"reduction_axes={reduction_axes} and feature_axes={features} of x, of "
                f"shape {shape}, both name the axes {both}; reduce over spatial axes only, "
                f"as in reduction_axes={complement((0, *features), len(shape))}."
            )
        return axes
    if 0 in features:
        raise ValueError(
            f"feature_axes={features} includes the first axis of x, of shape {shape}, "
            "which by default is the batch; pass as reduction_axes= the axes over which "
            "the moments are taken."
        )
    return complement((0, *features), len(shape))


def spatial_axes_of_groups(
    shape: Shape, features: tuple[int, ...], reduction_axes: Axis | None
) -> tuple[int, ...]:
    """Same as `spatial_axes`, but ignores feature axes in `reduction_axes`.

    An array of features alone is one example, without a batch or spatial axis.

    >>> spatial_axes_of_groups((8, 28, 28, 3), features=(3,), reduction_axes=(1, 2, 3))
    (1, 2)
    >>> spatial_axes_of_groups((6,), features=(0,), reduction_axes=None)
    ()
    """
    if reduction_axes is not None:
        given = canonical_axes(reduction_axes, len(shape))
        reduction_axes = tuple(each for each in given if each not in features)
    elif len(features) == len(shape):
        reduction_axes = ()
    return spatial_axes(shape, features, reduction_axes)


def check_samples(shape: Shape, reduced: tuple[int, ...], *, single: bool) -> None:
    """Raises a ValueError if an array of this shape has no samples to take moments of.

    Warns if there is a single one, unless `single` says that this has a meaning, or that
    there are more along an axis of vmap, pmap or shard_map.
    """
    sizes = sizes_of(shape, reduced)
    if 0 in sizes:
        raise ValueError(
            f"x has shape {shape}, so there are no samples along its axes {reduced} to "
            "take moments of; skip the empty batch, or use weights of 0 for padding."
        )
    if not single and all(isinstance(each, int) and each == 1 for each in sizes):
        warnings.warn(
            f"x has shape {shape}, and its moments are taken over the axes {reduced}, of a "
            "single element: each value is normalised by itself, and at most its sign is "
            "left; give x an axis of samples or a spatial axis, or choose other "
            "feature_axes= or reduction_axes=.",
            stacklevel=3,
        )


def check_weights(shape: Shape, weights: Any) -> None:
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
            "weights[..., None] for one value per sample or position."
        )
