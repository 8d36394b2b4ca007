"""Mean and variance of columns on a GPU: block by block, each about its own shift."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnorm._core.layouts import is_symbolic, number_along, size_along
from jaxnorm._core.sharding import is_sharded
from jaxnorm._core.variance.formulas import Measured, count_of, rounded, sum_over, to_dtype


def one_pass_in_blocks(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """Σ(x − s) and Σ(x − s)² in float32, block by block, about a shift s for each block.

    On a GPU, two float64 sums over columns do not fit into one kernel; two in float32 do,
    and only the few moments of the blocks are merged in float64. The shift s is the mean of
    every eighth sample of its block. If the block has mean μ, then (s − μ)² ≤ 7σ², whatever
    the order of the samples, so that at most a factor of 8 is lost. As a float64 mean, s is
    exact for a constant, whose differences are then exactly 0.
    """
    blocks = blocks_of(x, axes)
    assert blocks is not None
    split = x.reshape(blocks.shape)
    with jax.enable_x64(True):
        part = lax.slice_in_dim(split, 0, None, stride=8, axis=blocks.sliced)
        shift = to_dtype(x.dtype, _mean_in_float64(part, blocks.inner))
        # Two differences, so that XLA fuses each with its sum. It would write a shared one
        # to memory where x is small.
        again = lax.optimization_barrier(shift)
        size = number_along(split.shape, blocks.inner, x.dtype)
        off, square = (
            to_dtype(jnp.float64, sum_over(each, blocks.inner) / size)
            for each in (split - shift, jnp.square(split - again))
        )
        means = to_dtype(jnp.float64, shift) + off
        squares = jnp.square(means) + jnp.maximum(square - jnp.square(off), 0)
        mean, square = (
            _mean_in_float64(each, blocks.outer).reshape(blocks.kept)
            for each in (means, squares)
        )
        var = square - jnp.square(mean)
        return rounded(count_of(x, None, axes), mean, var, x.dtype, constant=2.0**-21)


def _mean_in_float64(values: Array, axes: tuple[int, ...]) -> Array:
    number = number_along(values.shape, axes, values.dtype)
    wide, number = to_dtype(jnp.float64, values), to_dtype(jnp.float64, number)
    return sum_over(wide, axes) / number


class Blocks(NamedTuple):
    """How an array is split into blocks of samples, each measured by itself.

    Attributes:
      shape: the shape of the array, with an axis of blocks.
      outer: the axes along which the blocks lie.
      inner: the axes within a block.
      sliced: the inner axis along which every eighth sample is taken for the shift.
      kept: the shape of the moments.
    """

    shape: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    sliced: int
    kept: tuple[int, ...]


def blocks_of(x: Array, axes: tuple[int, ...]) -> Blocks | None:
    """Returns blocks of neighbouring samples; None if there are too few to be worthwhile.

    The batch may be sharded along the first axis, so blocks there are single examples, or
    runs of examples that a power of 2 of devices may hold. Along other axes, blocks are
    only used if there are too few sums: to keep a GPU busy, XLA would write x − s to memory
    before it sums.
    """
    if is_symbolic(x.shape) or is_sharded(x, axes):
        return None
    if size_along(x.shape, axes) < FEWEST_SAMPLES:
        return None
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    shape, outer, inner = x.shape, (), axes
    sums = math.prod(kept)
    for axis in axes:
        size, samples = shape[axis], size_along(shape, inner)
        if axis == 0:
            most = max(1, samples // LONG_BLOCK)
            number = size if size <= most else math.gcd(size, _power_of_2_up_to(most))
        else:
            most = max(1, min(samples // SHORT_BLOCK, ENOUGH_SUMS // sums))
            number = _divisor_up_to(most, size)
        sums *= number
        if number < size:
            shape = (*shape[:axis], number, size // number, *shape[axis + 1 :])
            outer, inner = (*outer, axis), tuple(i + 1 for i in inner)
            break
        outer, inner = (*outer, axis), inner[1:]
    sliced = max(inner, key=lambda i: (shape[i], i))
    return Blocks(shape, outer, inner, sliced, kept)


# For fewer samples, float64 sums read less memory.
FEWEST_SAMPLES = 32
# Samples per block, so that its moments cost little: along the batch, and along spatial
# axes, where more blocks save more than they cost.
LONG_BLOCK, SHORT_BLOCK = 256, 128
# This many concurrent sums keep a GPU busy.
ENOUGH_SUMS = 2**14


def _power_of_2_up_to(most: int) -> int:
    return 2 ** (most.bit_length() - 1)


def _divisor_up_to(most: int, size: int) -> int:
    return max(n for n in range(1, min(most, size) + 1) if size % n == 0)
