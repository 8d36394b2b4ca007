"""Mean and variance along columns on a GPU: block by block, each about its own shift."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnorm.axes import is_sharded
from jaxnorm.formulas import Measured, count_of, rounded, shrink_for, sum_over, to_dtype
from jaxnorm.layouts import is_symbolic, number_along, size_along


def one_pass_in_blocks(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """Σ(x − s) and Σ(x − s)² in float32, block by block, about a shift s for each block.

    On a GPU, two float64 sums over columns do not fit into one kernel; two in float32 do,
    and only the few moments of the blocks are merged in float64. The shift is the mean of
    every eighth sample of its block, whose own mean μ it misses by at most (s − μ)² ≤ 7σ²,
    in whatever order the samples are: so no more than a factor of 8 is lost.
    """
    count, blocks = count_of(x, weights, axes), blocks_of(x, axes)
    assert blocks is not None
    split = x.reshape(blocks.shape)
    size = number_along(split.shape, blocks.inner, x.dtype)
    part = lax.slice_in_dim(split, 0, None, stride=8, axis=blocks.sliced)
    # Divided first, so that no sum overflows: it need not be their mean exactly.
    shift = sum_over(part / number_along(part.shape, blocks.inner, x.dtype), blocks.inner)
    shrink = shrink_for(shift)
    centred = (split - shift) * shrink
    off = sum_over(centred, blocks.inner) / size
    square = sum_over(jnp.square(centred), blocks.inner) / size
    with jax.enable_x64(True):
        shift, off, square, shrink, number_of_blocks = (
            to_dtype(jnp.float64, each)
            for each in (
                shift,
                off,
                square,
                shrink,
                number_along(split.shape, blocks.outer, x.dtype),
            )
        )
        off, square = off / shrink, square / jnp.square(shrink)
        means = shift + off
        squares = jnp.square(means) + jnp.maximum(square - jnp.square(off), 0)
        mean, square = (
            jnp.reshape(sum_over(each, blocks.outer) / number_of_blocks, blocks.kept)
            for each in (means, squares)
        )
        var = square - jnp.square(mean)
        return rounded(count, mean, var, x.dtype, constant=2.0**-21)


class Blocks(NamedTuple):
    """How an array is split into blocks of samples, each of them measured by itself.

    Attributes:
      shape: of the array, with an axis of blocks.
      outer: the axes along which the blocks lie.
      inner: those within a block.
      sliced: the axis of them along which every eighth is taken for the shift.
      kept: the shape of the moments.
    """

    shape: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    sliced: int
    kept: tuple[int, ...]


def blocks_of(x: Array, axes: tuple[int, ...]) -> Blocks | None:
    """Blocks that lie within what one device is likely to hold; None where there are none.

    A batch may be sharded along the first axis: each of its samples is a block, or, where
    there are no other axes to reduce, each run of samples.
    """
    if (
        is_symbolic(x.shape)
        or is_sharded(x, axes)
        or not axes
        or not size_along(x.shape, axes)
    ):
        return None
    shape, kept = x.shape, tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    outer, inner = axes[:1], axes[1:]
    if axes[0] != 0 or shape[0] == 1:
        outer, inner = (), axes
    elif size_along(shape, inner) < LEAST_BLOCK:
        if inner:
            return None
        number_of_blocks = math.gcd(shape[0], 64)
        while shape[0] // number_of_blocks < LEAST_BLOCK and number_of_blocks > 1:
            number_of_blocks //= 2
        shape = (number_of_blocks, shape[0] // number_of_blocks, *shape[1:])
        outer, inner = (0,), (1,)
    if size_along(shape, inner) < LEAST_BLOCK:
        return None
    sliced = max(inner, key=lambda i: (shape[i], i))
    return Blocks(shape, outer, inner, sliced, kept)


# A block of fewer samples would cost more for its moments than it saves.
LEAST_BLOCK = 32
