"""How the layout of an array affects sums over some of its axes.

Sizes may be symbolic (`jax.export.symbolic_shape`). Decisions that depend on them are left
open until the exported function is called, unless they are the same for all possible sizes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnorm._core.axes import Shape, sizes_of

# XLA on a CPU sums arrays of fewer elements in a plain loop, one element after another.
SMALL = 2**12
# It also does so if the axes after the reduced ones have this many elements.
WIDE = 2**14
# XLA for a GPU compiles a norm to one kernel if a row has no more elements than this.
# Found by compiling for an H100: rows of 2¹⁴ are read once, rows of 3·2¹³ more than once.
LONGEST_IN_KERNEL = 2**14
# The longest rows of 16 bits about their mean for which one kernel is also faster. On an
# H100, one for 2¹³ took .83 of the time of two, one for 3·2¹² 1.32 and one for 2¹⁴ 1.45.
LONGEST_OF_16_BITS = 2**13


def size_along(shape: Shape, axes: tuple[int, ...]) -> Any:
    """Returns the number of elements along these axes: 1 if there are none."""
    return math.prod(sizes_of(shape, axes))


def is_at_least(size: Any, least: int) -> bool:
    """Whether a size, which may be symbolic, is known to be at least `least`."""
    try:
        return bool(size >= least)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def number_along(shape: Shape, axes: tuple[int, ...], dtype: np.dtype) -> Array:
    """Returns `size_along` as a scalar array."""
    sizes = sizes_of(shape, axes)
    known = math.prod(each for each in sizes if isinstance(each, int))
    number = jnp.asarray(float(known), dtype)  # a float, as it may exceed 32 bits
    for each in sizes:
        if not isinstance(each, int):  # their product may exceed 32 bits too
            number = number * jnp.asarray(each).astype(dtype)
    return number


def is_symbolic(shape: Shape) -> bool:
    """Whether a size is not known until the exported function is called."""
    return not all(isinstance(each, int) for each in shape)


def runs(shape: Shape, axes: tuple[int, ...]) -> list[tuple[bool, Any]]:
    """Joins neighbouring axes into (whether they are reduced, number of elements).

    >>> runs((32, 28, 28, 1, 64), axes=(0, 1, 2))
    [(True, 25088), (False, 64)]
    """
    found: list[tuple[bool, Any]] = []
    for i, size in enumerate(shape):
        if isinstance(size, int) and size == 1:
            continue
        reduced = i in axes
        if found and found[-1][0] == reduced:
            size = found.pop()[1] * size
        found.append((reduced, size))
    return found


def is_tidy(shape: Shape, axes: tuple[int, ...]) -> bool | None:
    """Whether XLA on a CPU sums over these axes in a tree, and so to within a few ulps.

    Otherwise it adds one element after another, and a float32 sum of a constant is off by
    up to hundreds of ulps. Found by summing constants over random layouts. Returns None if
    symbolic sizes leave it open, provided that there is at least one sample.

    >>> is_tidy((4096, 64), (0,)), is_tidy((1000, 16, 3), (0, 2)), is_tidy((5, 6), (0,))
    (True, False, False)
    """
    if sum(reduced for reduced, _ in runs(shape, axes)) > 1:
        return False
    inner = size_along(shape, _behind(shape, axes))
    if is_at_least(math.prod(shape), SMALL) and is_at_least(-inner, 1 - WIDE):
        return True
    is_open = is_symbolic(shape) and is_at_least(size_along(shape, axes), 1)
    return None if is_open else False


def _behind(shape: Shape, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the axes after the last reduced one, ignoring reduced axes of size 1."""
    last = max((i for i in axes if shape[i] != 1), default=-1)
    return tuple(range(last + 1, len(shape)))


def if_tidy(
    shape: Shape,
    axes: tuple[int, ...],
    tidy: Callable[..., Any],
    other: Callable[..., Any],
    *operands: Any,
) -> Any:
    """Applies one of two functions to the operands, where `is_tidy` leaves it open.

    XLA compiles an exported function for the sizes it is called with, so that it knows the
    answer then and removes the other function. The results are selected with `jnp.where`,
    because XLA fuses less across a `lax.cond`.
    """
    behind = _behind(shape, axes)
    size, inner = (
        number_along(shape, each, np.dtype(np.float32))
        for each in (tuple(range(len(shape))), behind)
    )
    is_it = (size >= SMALL) & (inner < WIDE)
    return jax.tree.map(
        lambda one, two: jnp.where(is_it, one, two), tidy(*operands), other(*operands)
    )


def ends_reduced(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether the reduced elements are contiguous in memory: rows, not columns.

    >>> ends_reduced((32, 64), (1,)), ends_reduced((32, 64), (0,))
    (True, False)
    """
    found = runs(shape, axes)
    return bool(found) and found[-1][0]


def suits_a_gpu_kernel(
    shape: Shape, axes: tuple[int, ...], itemsize: int, *, about_zero: bool
) -> bool:
    """Whether XLA for a GPU should compile a norm to one kernel.

    Args:
      shape: of x.
      axes: the reduced ones.
      itemsize: the bytes of an element of x.
      about_zero: whether 0 is used in place of the mean.

    >>> suits_a_gpu_kernel((32, 4096), (1,), 2, about_zero=False)
    True
    >>> suits_a_gpu_kernel((32, 56, 56, 64), (1, 2, 3), 4, about_zero=False)
    False
    """
    small = itemsize <= 2 and not about_zero
    longest = LONGEST_OF_16_BITS if small else LONGEST_IN_KERNEL
    return is_at_least(-size_along(shape, axes), -longest)


def has_few_rows(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether rows are reduced, and the last of several other axes has fewer than 128.

    >>> has_few_rows((8192, 16, 128), (2,)), has_few_rows((8192, 128), (1,))
    (True, False)
    """
    kept = [size for i, size in enumerate(shape) if i not in axes and size != 1]
    few = len(kept) > 1 and isinstance(kept[-1], int) and kept[-1] < 128
    return few and ends_reduced(shape, axes)
