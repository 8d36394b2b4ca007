"""Mean and variance of an array: one formula for each platform, and the choice of one.

Each formula is exact to the bound that docs/numerics.md states, in every layout. They
differ in
what their platform computes in one pass over memory:

* a CPU has fast sums in float32 and nothing for two sums at once: `two_passes`;
* a GPU adds in float64 as fast as it reads: `one_pass_in_float64`, `one_pass_in_blocks`;
* a TPU has no float64, but reduces any monoid: `one_pass_of_merges`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnorm.axes import is_sharded
from jaxnorm.layouts import (
    ends_reduced,
    has_few_rows,
    if_tidy,
    is_symbolic,
    is_tidy,
    number_along,
    size_along,
)
from jaxnorm.masking import clear, weighted
from jaxnorm.moments import Moments


class Measured(NamedTuple):
    """Moments as a formula finds them, with the reduced axes kept at size 1.

    Attributes:
      count: Σw.
      mean: μ, rounded to its dtype.
      rest: what rounding took from the mean, where the formula knows it, and otherwise 0.
      var: σ², biased.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Array
    rest: Array
    var: Array


Purpose = Literal["output", "norm"]


def mean_and_variance(
    x: Array, weights: Array | None, axes: tuple[int, ...], purpose: Purpose
) -> Measured:
    """The moments of `x`, of an accumulation dtype, over `axes`.

    Args:
      x: the samples. weights: a mask, or numbers of x's dtype, of x's rank; None is 1 for
      all. axes: the axes to reduce. purpose: what they are for. "output": nothing but the
      output of a norm, so that on a GPU
        they may stay within its kernel. "norm": more than that, as for a derivative.
    """
    formulas = {
        platform: functools.partial(formula, axes=axes)
        for platform, formula in formulas_for(x, weights, axes, purpose).items()
    }
    if len(formulas) == 1:
        (formula,) = formulas.values()
        return formula(x, weights)
    return lax.platform_dependent(x, weights, **formulas)


Formula = Callable[..., Measured]


def _measured(count: Array, mean: Array, rest: Array, var: Array) -> Measured:
    # Weights may be the same on all shards of x; the count is made of the others' type.
    return Measured(count + jnp.zeros_like(var), mean, rest, var)


def formulas_for(
    x: Array, weights: Array | None, axes: tuple[int, ...], purpose: Purpose
) -> dict[str, Formula]:
    """A formula for each platform: of x, its weights and the axes."""
    if x.dtype == jnp.float64:
        return {"default": corrected_two_passes}
    if has_several_devices("cpu") or is_sharded(x, axes):
        on_cpu = one_pass_in_float64
    elif (tidy := is_tidy(x.shape, axes)) is None:
        on_cpu = two_passes_if_tidy
    elif not tidy:
        on_cpu = in_float64
    else:
        on_cpu = two_passes if weights is None else corrected_two_passes
    if weights is not None:
        on_gpu = one_pass_in_float64
    elif ends_reduced(x.shape, axes):
        on_gpu = within_a_kernel if purpose == "output" else one_pass_in_float64
    else:
        on_gpu = one_pass_in_blocks if blocks_of(x, axes) else one_pass_in_float64
    return {
        "default": on_cpu,
        "cuda": on_gpu,
        "rocm": on_gpu,
        # XLA for a TPU takes minutes to compile merges along rows of which few are stacked,
        # as (8192, 16, 128) has them: heads, or groups of features.
        "tpu": corrected_two_passes if has_few_rows(x.shape, axes) else one_pass_of_merges,
    }


def has_several_devices(platform: str) -> bool:
    """Whether an array may be sharded there, so that statistics should be one message."""
    return jax.device_count(platform) > 1


def count_of(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Array:
    """Σw over the axes, kept at size 1."""
    kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    if weights is None:
        return jnp.full(kept, number_along(x.shape, axes, x.dtype))
    w = jnp.asarray(weights)
    w = clear(w.astype(x.dtype), weighted(w))
    repeated = tuple(i for i in axes if w.shape[i] == 1 and i < x.ndim)
    count = sum_over(w, axes) * number_along(x.shape, repeated, x.dtype)
    return jnp.broadcast_to(count, kept)


def two_passes(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """μ̂ = Σx/n, then σ² = Σ(x − μ̂)²/n.

    μ̂ is off by a few ulps, also for a constant. Where it is as near as that to the first
    sample, the second pass is about that one, of which a constant varies by exactly 0.
    """
    count, total = count_of(x, weights, axes), sum_over(x, axes)
    first = lax.slice(
        x, (0,) * x.ndim, [1 if i in axes else n for i, n in enumerate(x.shape)]
    )
    off = total / count - first
    near = (jnp.abs(off) <= 4 * _ulp(x) * jnp.abs(first)) | jnp.isinf(total)
    # Of its own, with a −μ̂ of its own: x − μ̂, which others use too, XLA:CPU would
    # materialise.
    opposite = jnp.where(near, -first, total / -count)
    var = sum_over(jnp.square(x + opposite), axes) / count
    constant = near & (var == 0)
    # A division, which XLA does once for each feature: a choice of quotients it would make
    # again for each element of x.
    mean = jnp.where(constant, first, total) / jnp.where(constant, 1, count)
    # What the first sample is off by is known to some ulps: below twice that nothing is
    # gained.
    excess = jnp.square(off)
    var = jnp.where(near & (var > 2 * excess), var - excess, var)
    return _measured(count, mean, jnp.zeros_like(mean), _seen_overflow(var))


def corrected_two_passes(
    x: Array, weights: Array | None, axes: tuple[int, ...]
) -> Measured:
    """Those two passes, and what the mean is off by: Σw(x − μ̂)/n (Chan et al. 1983)."""
    used, x, w = used_samples(x, weights)
    count = count_of(x, weights, axes)
    seen = seen_count(count)
    # A share is at most 1, so that no sum overflows where its result does not.
    share = w / seen
    guess = sum_over(share * x, axes)
    # Under a mask nothing need be multiplied, which saves passes over x on a CPU.
    is_float = weights is not None and weights.dtype != bool
    part, whole = (share, 1) if is_float else (w, seen)
    shrink = _shrink(guess)
    off = sum_over(part * clear((x - guess) * shrink, used), axes) / whole
    centred = clear((x - guess) * shrink - off, used)
    var = sum_over(part * jnp.square(centred), axes) / whole
    mean = guess + off / shrink
    rest = off / shrink - (mean - guess)
    constant = var <= jnp.square(2.0**-5 * _ulp(x) * mean * shrink)
    rest = jnp.where(constant, 0, rest)
    return _measured(count, mean, rest, _variance(var, constant, shrink))


def two_passes_if_tidy(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """In float32 where that is exact, which symbolic sizes leave open until the call."""
    fast = two_passes if weights is None else corrected_two_passes
    both = (functools.partial(each, axes=axes) for each in (fast, in_float64))
    return if_tidy(x.shape, axes, *both, x, weights)


def in_float64(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Two passes with float64 sums, exact in any order."""
    with jax.enable_x64(True):
        used, wide, w, count, n = _widened(x, weights, axes)
        mean = sum_over(w * wide, axes) / n
        centred = clear(wide - mean, used)
        var = sum_over(w * jnp.square(centred), axes) / n
        return _rounded(count, mean, var, x.dtype, constant=2.0**-40)


def one_pass_in_float64(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Σwx and Σwx² in float64, which cancel only where |μ|/σ exceeds 10⁷.

    Under plain jit on several devices they are one message, of a size that does not depend
    on the number of devices.
    """
    with jax.enable_x64(True):
        _, wide, w, count, n = _widened(x, weights, axes)
        mean = sum_over(w * wide, axes) / n
        square = sum_over(w * jnp.square(wide), axes) / n
        var = square - jnp.square(mean)
        return _rounded(count, mean, var, x.dtype, constant=2.0**-21)


def within_a_kernel(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """Two stages that XLA for a GPU makes one kernel of, with the normalisation.

    Any choice here, and any moments returned, would break it into several.
    """
    count = count_of(x, weights, axes)
    with jax.enable_x64(True):
        mean = sum_over(_to(jnp.float64, x), axes) / _to(jnp.float64, count)
        near = _to(x.dtype, mean)
        rest = _to(x.dtype, mean - _to(jnp.float64, near))
    var = sum_over(jnp.square((x - near) - rest), axes) / count
    return _measured(count, near, rest, var)


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
    shrink = _shrink(shift)
    centred = (split - shift) * shrink
    off = sum_over(centred, blocks.inner) / size
    square = sum_over(jnp.square(centred), blocks.inner) / size
    with jax.enable_x64(True):
        shift, off, square, shrink, number_of_blocks = (
            _to(jnp.float64, each)
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
        return _rounded(count, mean, var, x.dtype, constant=2.0**-21)


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


def one_pass_of_merges(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """The merge of moments (Chan et al. 1983) as the operation of a reduction.

    A sample is (w, x, 0) of weight, mean and Σw(x − μ)², and as much that rounding took
    from them: a TPU merges one sample after another into a lane, and without that a mean
    which is near enough to all of them would stop to move.
    """
    count = count_of(x, weights, axes)
    used, x, w = used_samples(x, weights)
    if used is not None:
        w = clear(jnp.asarray(weights).astype(x.dtype), used)
    if weights is not None and weights.dtype != bool:
        # Of 1, so that no product with the largest or the smallest weights leaves the
        # range.
        w = w / seen_count(count)
    zero, nothing = np.zeros((), x.dtype), jnp.zeros_like(x)
    sample = (jnp.broadcast_to(w, x.shape), x, *[nothing] * 4)
    total, mean, square, *lost = (
        jnp.expand_dims(each, axes)
        for each in lax.reduce(sample, (zero,) * len(sample), _merged, axes)
    )
    near = mean + lost[1]
    rest, var = lost[1] - (near - mean), (square + lost[2]) / seen_count(total + lost[0])
    return _measured(count, near, rest, _seen_overflow(var))


Partial = tuple[Array, Array, Array, Array, Array, Array]


def _merged(one: Partial, other: Partial) -> Partial:
    n1, mean1, square1, *lost1 = one
    n2, mean2, square2, *lost2 = other
    n, n_error = _two_sum(n1, n2)
    n_lost = lost1[0] + lost2[0] + n_error
    share = (n2 + lost2[0]) / jnp.where(n > 0, n + n_lost, 1)
    apart = mean2 - mean1
    mean, mean_error = _two_sum(mean1, apart * share)
    further = lost2[1] - lost1[1]
    apart += further
    # In this order 0 samples and the largest number give 0.
    square, error = _two_sum(square1, apart * ((n1 + lost1[0]) * share) * apart)
    square, square_error = _two_sum(square, square2)
    return (
        n,
        mean,
        square,
        n_lost,
        lost1[1] + further * share + mean_error,
        lost1[2] + lost2[2] + (error + square_error),
    )


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The sum and what rounding takes from it (Knuth)."""
    total = a + b
    added = total - a
    return total, (a - (total - added)) + (b - added)


def settled(moments: Moments) -> Moments:
    """Merged moments, of which a variance that rounding alone can make counts as 0."""
    count, mean, var = moments
    return Moments(count, mean, jnp.where(var <= jnp.square(4 * _ulp(var) * mean), 0, var))


def used_samples(x: Any, weights: Any) -> tuple[Array | None, Array, Array]:
    """Where x has weight, or None for everywhere; x, 0 elsewhere; its weights there."""
    x = jnp.asarray(x)
    one = jnp.ones((1,) * x.ndim, x.dtype)
    if weights is None:
        return None, x, one
    weights = jnp.asarray(weights)
    used = weighted(weights)
    if weights.dtype == bool:
        return used, clear(x, used), one
    return used, clear(x, used), clear(weights, used)


def seen_count(count: Array) -> Array:
    """The count, or 1 where nothing was seen."""
    return jnp.where(count > 0, count, 1)


def sum_over(values: Array, axes: tuple[int, ...]) -> Array:
    """The sum over axes, which are kept at size 1."""
    return jnp.sum(values, axes, keepdims=True)


def _variance(var: Array, constant: Array, shrink: Array) -> Array:
    """σ² of σ²·shrink², 0 for a constant."""
    return _seen_overflow(jnp.where(constant, 0, var / shrink / shrink))


def _seen_overflow(var: Array) -> Array:
    """NaN for a variance that overflowed, of which 1/σ = 0 would give β for every x."""
    return jnp.where(jnp.isinf(var), jnp.nan, var)


def _shrink(mean: Array) -> Array:
    """A power of 2 that keeps squares from overflowing about the largest means."""
    return jnp.where(jnp.abs(mean) > 2.0**60, 2.0**-80, 1).astype(mean.dtype)


def _ulp(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps)


def _to(dtype: Any, array: Array) -> Array:
    """`array` in a dtype that jnp would not allow where it is not set to."""
    return lax.convert_element_type(array, dtype)


def _widened(
    x: Array, weights: Array | None, axes: tuple[int, ...]
) -> tuple[Array | None, Array, Array, Array, Array]:
    """Where x has weight; x and the weights; their sum, and that or 1 where it is 0."""
    used, values, w = used_samples(x, weights)
    if weights is None or used is None:
        count = count_of(x, None, axes)
        n = _to(jnp.float64, seen_count(count))
    else:
        w = jnp.broadcast_to(clear(_to(x.dtype, weights), used), x.shape)
        total = sum_over(_to(jnp.float64, w), axes)
        count, n = _to(x.dtype, total), seen_count(total)
    return used, _to(jnp.float64, values), _to(jnp.float64, w), count, n


def _rounded(
    count: Array, mean: Array, var: Array, dtype: Any, *, constant: float
) -> Measured:
    """Moments in `dtype`; a deviation within `constant` of the mean counts as 0."""
    is_constant = var <= jnp.square(constant * mean)
    near = _to(dtype, mean)
    rest = _to(dtype, jnp.where(is_constant, 0, mean - _to(jnp.float64, near)))
    var = _to(dtype, jnp.where(is_constant, 0, var))
    return _measured(count, near, rest, _seen_overflow(var))
