"""Formulas for mean and variance, each accurate to the bound in docs/numerics.md.

`choice` selects a formula for each platform; two longer formulas are in `blocks` and
`merging`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnorm._core.layouts import if_tidy, number_along
from jaxnorm._core.weights import clear, weighted


class Measured(NamedTuple):
    """Moments as a formula computes them, with the reduced axes kept at size 1.

    Attributes:
      count: Σw.
      mean: μ, rounded to its dtype.
      rest: the rounding error of the mean if the formula knows it, else 0.
      var: σ², biased.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Array
    rest: Array
    var: Array


def two_passes(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """μ̂ = Σx/n, then σ² = Σ(x − μ̂)²/n.

    μ̂ is off by a few ulps, even for a constant. Where it is that close to the first
    sample, the second pass uses that sample instead of μ̂, so that the variance of a
    constant is exactly 0.
    """
    count, total = count_of(x, weights, axes), sum_over(x, axes)
    first = lax.slice(
        x, (0,) * x.ndim, [1 if i in axes else n for i, n in enumerate(x.shape)]
    )
    off = total / count - first
    near = (jnp.abs(off) <= 4 * ulp(x) * jnp.abs(first)) | jnp.isinf(total)
    # Recomputed on purpose, with a separate −μ̂: XLA:CPU would materialise a shared x − μ̂.
    opposite = jnp.where(near, -first, total / -count)
    var = sum_over(jnp.square(x + opposite), axes) / count
    constant = near & (var == 0)
    # XLA does a division once per feature, but would repeat a `jnp.where` of quotients for
    # each element of x.
    mean = jnp.where(constant, first, total) / jnp.where(constant, 1, count)
    # The distance to the first sample is known only to a few ulps: if the variance is below
    # twice its square, subtracting gains nothing.
    excess = jnp.square(off)
    var = jnp.where(near & (var > 2 * excess), var - excess, var)
    return as_measured(count, mean, jnp.zeros_like(mean), seen_overflow(var))


def corrected_two_passes(
    x: Array, weights: Array | None, axes: tuple[int, ...]
) -> Measured:
    """Two passes, and the error of the mean: Σw(x − μ̂)/n (Chan et al. 1983)."""
    used, x, w = used_samples(x, weights)
    count = count_of(x, weights, axes)
    seen = seen_count(count)
    # Shares are at most 1, so that no sum overflows unless its result does.
    share = w / seen
    guess = sum_over(share * x, axes)
    # A mask needs no multiplication, which saves passes over x on a CPU.
    is_float = weights is not None and weights.dtype != bool
    part, whole = (share, 1) if is_float else (w, seen)
    shrink = _shrink(guess)
    off = sum_over(part * clear((x - guess) * shrink, used), axes) / whole
    centred = clear((x - guess) * shrink - off, used)
    var = sum_over(part * jnp.square(centred), axes) / whole
    mean = guess + off / shrink
    rest = off / shrink - (mean - guess)
    constant = var <= jnp.square(2.0**-5 * ulp(x) * mean * shrink)
    rest = jnp.where(constant, 0, rest)
    return as_measured(count, mean, rest, _variance(var, constant, shrink))


def two_passes_if_tidy(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """In float32 where that is accurate, which symbolic sizes leave open until the call."""
    fast = two_passes if weights is None else corrected_two_passes
    both = (functools.partial(each, axes=axes) for each in (fast, in_float64))
    return if_tidy(x.shape, axes, *both, x, weights)


def in_float64(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Two passes with float64 sums, accurate in any order."""
    with jax.enable_x64(True):
        used, wide, w, count, n = _widened(x, weights, axes)
        mean = sum_over(w * wide, axes) / n
        centred = clear(wide - mean, used)
        var = sum_over(w * jnp.square(centred), axes) / n
        return rounded(count, mean, var, x.dtype, constant=2.0**-40)


def one_pass_in_float64(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Σwx and Σwx² in float64, which cancel only if |μ|/σ exceeds 10⁷.

    Under plain jit on several devices, the sums are a single message, whose size does not
    depend on the number of devices.
    """
    with jax.enable_x64(True):
        _, wide, w, count, n = _widened(x, weights, axes)
        mean = sum_over(w * wide, axes) / n
        square = sum_over(w * jnp.square(wide), axes) / n
        var = square - jnp.square(mean)
        return rounded(count, mean, var, x.dtype, constant=2.0**-21)


def within_a_kernel(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """Two stages that XLA for a GPU compiles to one kernel with the normalisation.

    Any `jnp.where` here, and any moments returned, would break it into several.
    """
    count = count_of(x, weights, axes)
    with jax.enable_x64(True):
        mean = sum_over(to_dtype(jnp.float64, x), axes) / to_dtype(jnp.float64, count)
        near = to_dtype(x.dtype, mean)
        rest = to_dtype(x.dtype, mean - to_dtype(jnp.float64, near))
    var = sum_over(jnp.square((x - near) - rest), axes) / count
    return as_measured(count, near, rest, var)


def count_of(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Array:
    """Returns Σw over the axes, kept at size 1."""
    kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    if weights is None:
        return jnp.full(kept, number_along(x.shape, axes, x.dtype))
    w = jnp.asarray(weights)
    w = clear(w.astype(x.dtype), weighted(w))
    repeated = tuple(i for i in axes if w.shape[i] == 1 and i < x.ndim)
    count = sum_over(w, axes) * number_along(x.shape, repeated, x.dtype)
    return jnp.broadcast_to(count, kept)


def used_samples(x: Any, weights: Any) -> tuple[Array | None, Array, Array]:
    """Returns where x has weight (None: everywhere), x or 0 elsewhere, and its weights."""
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
    """Returns the count, or 1 where there are no samples."""
    return jnp.where(count > 0, count, 1)


def sum_over(values: Array, axes: tuple[int, ...]) -> Array:
    """Returns the sum over axes, which are kept at size 1."""
    return jnp.sum(values, axes, keepdims=True)


def to_dtype(dtype: Any, array: Array) -> Array:
    """Converts `array` to a dtype that jnp may not allow by default, such as float64."""
    return lax.convert_element_type(array, dtype)


def rounded(
    count: Array, mean: Array, var: Array, dtype: Any, *, constant: float
) -> Measured:
    """Rounds moments to `dtype`; sets a variance up to (constant·mean)² to 0."""
    is_constant = var <= jnp.square(constant * mean)
    near = to_dtype(dtype, mean)
    rest = to_dtype(dtype, jnp.where(is_constant, 0, mean - to_dtype(jnp.float64, near)))
    var = to_dtype(dtype, jnp.where(is_constant, 0, var))
    return as_measured(count, near, rest, seen_overflow(var))


def as_measured(count: Array, mean: Array, rest: Array, var: Array) -> Measured:
    # Weights may be the same on all shards of x; the count gets the type of the others.
    return Measured(count + jnp.zeros_like(var), mean, rest, var)


def seen_overflow(var: Array) -> Array:
    """Sets an overflowed variance to NaN, as 1/σ = 0 would give β for every x."""
    return jnp.where(jnp.isinf(var), jnp.nan, var)


def ulp(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps)


def _shrink(mean: Array) -> Array:
    """Returns a power of 2 that keeps squares from overflowing at the largest means."""
    return jnp.where(jnp.abs(mean) > 2.0**60, 2.0**-80, 1).astype(mean.dtype)


def _variance(var: Array, constant: Array, shrink: Array) -> Array:
    """Returns σ² from σ²·shrink²; 0 for a constant."""
    return seen_overflow(jnp.where(constant, 0, var / shrink / shrink))


def _widened(
    x: Array, weights: Array | None, axes: tuple[int, ...]
) -> tuple[Array | None, Array, Array, Array, Array]:
    """Where x has weight; x; the weights; their sum; and that sum, or 1 where it is 0."""
    used, values, w = used_samples(x, weights)
    if weights is None or used is None:
        count = count_of(x, None, axes)
        n = to_dtype(jnp.float64, seen_count(count))
    else:
        w = jnp.broadcast_to(clear(to_dtype(x.dtype, weights), used), x.shape)
        total = sum_over(to_dtype(jnp.float64, w), axes)
        count, n = to_dtype(x.dtype, total), seen_count(total)
    return used, to_dtype(jnp.float64, values), to_dtype(jnp.float64, w), count, n
