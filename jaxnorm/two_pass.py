"""The moments of samples in two passes over them, and what goes into their sums."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnorm.axes import is_sharded, take
from jaxnorm.masking import clear, weighted
from jaxnorm.moments import Moments
from jaxnorm.precision import Operand, accumulation_dtype


def equal_samples(x: Array, axes: tuple[int, ...]) -> Moments:
    """The moments of samples of equal weight, in two passes over x."""
    n = count_samples(x.shape, axes)
    if not n:
        kept = [1 if i in axes else size for i, size in enumerate(x.shape)]
        return Moments.empty(tuple(kept), x.dtype)
    total = sum_over(x, axes)
    first, middle, last = (_sample(x, axes, part) for part in (0, 1 / 2, 1))
    # Σx/n is off by some ulps, also for a constant, and overflows before x does. What may
    # be a constant is compared with its first sample instead.
    off = total / n - first
    near = jnp.abs(off) <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(first)
    alike = (near & (first == middle) & (first == last)) | jnp.isinf(total)
    # Of its own: x − mean, which others use too, XLA would write to memory on a CPU.
    opposite = jnp.where(alike, -first, total / -n)
    var = sum_over(jnp.square(x + opposite), axes) / n
    # It is no constant where it varies by more than the sum is off.
    constant = alike & (var <= 16 * jnp.square(off)) & jnp.isfinite(var)
    return Moments(
        count=jnp.full_like(total, n),
        # A division, which XLA does once for each feature: a choice of quotients it would
        # make again for each element of x.
        mean=jnp.where(constant, first, total) / jnp.where(constant, 1, n),
        var=jnp.where(alike & ~constant, var - jnp.square(off), var),
    )


def weighted_samples(x: Operand, weights: Operand, axes: tuple[int, ...]) -> Moments:
    """The moments of weighted samples: Chan et al.'s corrected two-pass algorithm."""
    used, x, w = used_samples(x, weights)
    count = _count(clear(jnp.broadcast_to(w, jnp.shape(weights)), used), x.shape, axes)
    # A share is at most 1, so that no sum overflows where its result does not.
    seen = seen_count(count)
    share = w / seen
    guess = sum_over(share * x, axes)
    # Under a mask nothing need be multiplied, which saves passes over x on a CPU.
    part, whole = (w, seen) if weights.dtype == bool else (share, 1)
    # It is off by some ulps, the squares of which overflow for the largest constants.
    shrink = jnp.where(jnp.abs(guess) > 2.0**60, 2.0**-80, 1)
    centred = clear((x - guess) * shrink, used)
    off = sum_over(part * centred, axes) / whole
    var = sum_over(part * jnp.square(centred), axes) / whole - jnp.square(off)
    # All variance of a constant is that of the guess.
    var = jnp.where(var <= jnp.square(off) / 1024, 0, var)
    return Moments(count, guess + off / shrink, var / shrink / shrink)


def mean_square(x: Operand, weights: Operand | None, axes: tuple[int, ...]) -> Moments:
    """The moments about 0, in one pass."""
    if weights is None:
        x = jnp.asarray(x, accumulation_dtype(x.dtype))
        n = count_samples(x.shape, axes)
        square = sum_over(jnp.square(x), axes) / (n or 1)
        return Moments(jnp.full_like(square, n), jnp.zeros_like(square), square)
    used, x, w = used_samples(x, weights)
    count = _count(clear(jnp.broadcast_to(w, jnp.shape(weights)), used), x.shape, axes)
    square = sum_over(w / seen_count(count) * jnp.square(x), axes)
    return Moments(count, jnp.zeros_like(square), square)


def used_samples(x: Operand, weights: Operand | None) -> tuple[Array | None, Array, Array]:
    """Where x has weight, or None for everywhere; x, 0 elsewhere; its weights there."""
    x = jnp.asarray(x, accumulation_dtype(x.dtype))
    one = jnp.ones((1,) * x.ndim, x.dtype)
    if weights is None:
        return None, x, one
    weights = jnp.asarray(weights)
    used = weighted(weights)
    if weights.dtype == bool:
        return used, clear(x, used), one
    return used, clear(x, used), clear(weights, used)


def _count(w: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Σw over the axes of an array of this shape, against which w broadcasts."""
    repeated = [i for i in axes if w.shape[i] == 1]
    count = sum_over(w, axes) * float(math.prod(take(shape, tuple(repeated))))
    kept = [1 if i in axes else size for i, size in enumerate(shape)]
    return jnp.broadcast_to(count, kept)


def seen_count(count: Array) -> Array:
    return jnp.where(count > 0, count, 1)


def _sample(x: Array, axes: tuple[int, ...], part: float) -> Array:
    """The sample that lies so far along the reduced axes: 0 is the first, 1 the last."""
    places = [int(part * (size - 1)) for size in x.shape]
    if is_sharded(x, axes):  # and so cannot be cut
        here = [jax.lax.broadcasted_iota(int, x.shape, i) == places[i] for i in axes]
        return sum_over(jnp.where(functools.reduce(jnp.logical_and, here), x, 0), axes)
    return x[
        tuple(
            slice(place, place + 1) if i in axes else slice(None)
            for i, place in enumerate(places)
        )
    ]


def sum_over(values: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sum(values, axes, keepdims=True)


def count_samples(shape: tuple[int, ...], axes: tuple[int, ...]) -> float:
    """How many samples an array of this shape has along these axes."""
    return float(math.prod(take(shape, axes)))
