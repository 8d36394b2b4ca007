"""Mean and variance of an array: the formulas, each exact to the bound of docs/numerics.md.

Which of them a platform takes is said in `variance`; two that take more words are in
`blocks` and `merging`.
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
    near = (jnp.abs(off) <= 4 * ulp(x) * jnp.abs(first)) | jnp.isinf(total)
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
    return as_measured(count, mean, jnp.zeros_like(mean), seen_overflow(var))


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
    constant = var <= jnp.square(2.0**-5 * ulp(x) * mean * shrink)
    rest = jnp.where(constant, 0, rest)
    return as_measured(count, mean, rest, _variance(var, constant, shrink))


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
        return rounded(count, mean, var, x.dtype, constant=2.0**-40)


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
        return rounded(count, mean, var, x.dtype, constant=2.0**-21)


def within_a_kernel(x: Array, weights: None, axes: tuple[int, ...]) -> Measured:
    """Two stages that XLA for a GPU makes one kernel of, with the normalisation.

    Any choice here, and any moments returned, would break it into several.
    """
    count = count_of(x, weights, axes)
    with jax.enable_x64(True):
        mean = sum_over(to_dtype(jnp.float64, x), axes) / to_dtype(jnp.float64, count)
        near = to_dtype(x.dtype, mean)
        rest = to_dtype(x.dtype, mean - to_dtype(jnp.float64, near))
    var = sum_over(jnp.square((x - near) - rest), axes) / count
    return as_measured(count, near, rest, var)


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


def to_dtype(dtype: Any, array: Array) -> Array:
    """`array` in a dtype that jnp would not allow where it is not set to."""
    return lax.convert_element_type(array, dtype)


def rounded(
    count: Array, mean: Array, var: Array, dtype: Any, *, constant: float
) -> Measured:
    """Moments in `dtype`; a deviation within `constant` of the mean counts as 0."""
    is_constant = var <= jnp.square(constant * mean)
    near = to_dtype(dtype, mean)
    rest = to_dtype(dtype, jnp.where(is_constant, 0, mean - to_dtype(jnp.float64, near)))
    var = to_dtype(dtype, jnp.where(is_constant, 0, var))
    return as_measured(count, near, rest, seen_overflow(var))


def as_measured(count: Array, mean: Array, rest: Array, var: Array) -> Measured:
    # Weights may be the same on all shards of x; the count is made of the others' type.
    return Measured(count + jnp.zeros_like(var), mean, rest, var)


def seen_overflow(var: Array) -> Array:
    """NaN for a variance that overflowed, of which 1/σ = 0 would give β for every x."""
    return jnp.where(jnp.isinf(var), jnp.nan, var)


def ulp(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps)


def _shrink(mean: Array) -> Array:
    """A power of 2 that keeps squares from overflowing about the largest means."""
    return jnp.where(jnp.abs(mean) > 2.0**60, 2.0**-80, 1).astype(mean.dtype)


def _variance(var: Array, constant: Array, shrink: Array) -> Array:
    """σ² of σ²·shrink², 0 for a constant."""
    return seen_overflow(jnp.where(constant, 0, var / shrink / shrink))


def _widened(
    x: Array, weights: Array | None, axes: tuple[int, ...]
) -> tuple[Array | None, Array, Array, Array, Array]:
    """Where x has weight; x and the weights; their sum, and that or 1 where it is 0."""
    used, values, w = used_samples(x, weights)
    if weights is None or used is None:
        count = count_of(x, None, axes)
        n = to_dtype(jnp.float64, seen_count(count))
    else:
        w = jnp.broadcast_to(clear(to_dtype(x.dtype, weights), used), x.shape)
        total = sum_over(to_dtype(jnp.float64, w), axes)
        count, n = to_dtype(x.dtype, total), seen_count(total)
    return used, to_dtype(jnp.float64, values), to_dtype(jnp.float64, w), count, n
