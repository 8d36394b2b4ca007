"""What the layout of an array means for sums over some of its axes.

Sizes may be symbolic (`jax.export.symbolic_shape`): they count as large, and are never
compared.
"""

import math
from typing import Any

from jaxnorm.axes import take

Shape = tuple[Any, ...]  # of ints, or of symbolic dimensions

# XLA on a CPU adds arrays of fewer elements in a plain loop, one after another.
SMALL = 2**12
# It also does if what follows the reduced axes in memory is this long.
WIDE = 2**14


def size_along(shape: Shape, axes: tuple[int, ...]) -> Any:
    """How many elements an array of this shape has along these axes: 1 along none."""
    return math.prod(take(shape, axes))


def is_symbolic(shape: Shape) -> bool:
    """Whether a size is known only when the exported function is called."""
    return not all(isinstance(each, int) for each in shape)


def runs(shape: Shape, axes: tuple[int, ...]) -> list[tuple[bool, Any]]:
    """Neighbouring axes that are reduced, or not, as (whether, how many elements).

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


def is_tidy(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether XLA on a CPU adds over these axes in a tree, and so to within few ulps.

    Elsewhere it adds one element after another, and a float32 sum of a constant is off by
    up to hundreds of ulps. Found by summing constants over random layouts.

    >>> is_tidy((4096, 64), (0,)), is_tidy((1000, 16, 3), (0, 2)), is_tidy((5, 6), (0,))
    (True, False, False)
    """
    found = runs(shape, axes)
    if sum(reduced for reduced, _ in found) > 1:
        return False
    size = math.prod(each for _, each in found)
    inner = found[-1][1] if found and not found[-1][0] else 1
    large = not isinstance(size, int) or size >= SMALL
    return large and (not isinstance(inner, int) or inner < WIDE)


def ends_reduced(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether what is reduced is contiguous in memory: rows, not columns.

    >>> ends_reduced((32, 64), (1,)), ends_reduced((32, 64), (0,))
    (True, False)
    """
    found = runs(shape, axes)
    return bool(found) and found[-1][0]


def has_few_rows(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether reduced rows are stacked by fewer than 128 along one of several other axes.

    >>> has_few_rows((8192, 16, 128), (2,)), has_few_rows((8192, 128), (1,))
    (True, False)
    """
    kept = [size for i, size in enumerate(shape) if i not in axes and size != 1]
    few = len(kept) > 1 and isinstance(kept[-1], int) and kept[-1] < 128
    return few and ends_reduced(shape, axes)
