"""Measuring: the moments of an array, and their derivative."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm.axes import Axis, canonical_axes, take
from jaxnorm.masking import as_weights, clear, weighted
from jaxnorm.moments import Moments
from jaxnorm.precision import Operand, accumulation_dtype, as_floating


def measure(x: ArrayLike, axes: Axis, weights: ArrayLike | None = None) -> Moments:
    """The moments of `x` over `axes`.

    With weights w (1 when not given) over the reduced axes,

        n = Σw,  μ = Σw·x / n,  σ² = Σw·(x − μ)² / n.

    The variance takes another pass over x: E[x²] − μ² would cancel, and lose every
    digit once |μ|/σ exceeds about 10³ in float32 (Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance"). A constant is its own mean, to the
    last bit, and its variance is 0. For a derivative x, its weights and its moments are kept.

    Args:
      x: floating array of any rank.
      axes: the axes to reduce, one or several; none means each element is a sample
        of its own.
      weights: boolean mask or non-negative weights that broadcast against x. What has
        weight 0 reaches neither the moments nor a gradient, be it NaN or infinite. A
        weight that is negative or NaN counts as 0.

    Returns:
      Moments of the shape of the axes kept, in at least float32.

    Raises:
      TypeError: x is not real floating, or weights are complex.
      ValueError: an axis is out of range or repeated; weights do not broadcast.

    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> measure(x, axes=0)
    Moments(count=Array([2., 2.], dtype=float32), mean=Array([ 2., 20.], dtype=float32), var=Array([  1., 100.], dtype=float32))
    >>> measure(x, axes=0, weights=jnp.array([[True], [False]])).mean
    Array([ 1., 10.], dtype=float32)
    """  # noqa: E501 (a doctest's output cannot be broken)
    x = as_floating(x)
    axes = canonical_axes(axes, x.ndim)
    if weights is not None:
        weights = as_weights(weights, x)
    return Moments(*(jnp.squeeze(each, axes) for each in _measure(x, weights, axes)))


def measure_about_zero(
    x: ArrayLike, axes: Axis, weights: ArrayLike | None = None
) -> Moments:
    """The moments of `x` about 0 in place of its mean: those of a root mean square.

        n = Σw,  μ = 0,  σ² = Σw·x² / n

    They merge like others. The arguments, errors and derivatives are those of `measure`.

    >>> measure_about_zero(jnp.array([3.0, 4.0]), axes=0).var
    Array(12.5, dtype=float32)
    """
    x = as_floating(x)
    axes = canonical_axes(axes, x.ndim)
    if weights is not None:
        weights = as_weights(weights, x)
    count, square = (jnp.squeeze(e, axes) for e in _mean_square(x, weights, axes))
    return Moments(count, jnp.zeros_like(square), square)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _measure(x: Operand, weights: Operand | None, axes: tuple[int, ...]) -> Moments:
    """The moments, with the reduced axes kept at size 1."""
    if weights is None:
        return _measure_equal(jnp.asarray(x, accumulation_dtype(x.dtype)), axes)
    return _measure_weighted(x, weights, axes)


def _measure_equal(x: Array, axes: tuple[int, ...]) -> Moments:
    """The moments of samples of equal weight, in two passes over x."""
    n = float(math.prod(take(x.shape, axes)))
    if not n:
        kept = [1 if i in axes else size for i, size in enumerate(x.shape)]
        return Moments.empty(tuple(kept), x.dtype)
    total = _total(x, axes)
    first, middle, last = (_sample(x, axes, part) for part in (0, 1 / 2, 1))
    # Σx/n is off by some ulps, also for a constant, and overflows before x does. What may
    # be a constant is compared with its first sample instead.
    off = total / n - first
    near = jnp.abs(off) <= 8 * jnp.finfo(x.dtype).eps * jnp.abs(first)
    alike = (near & (first == middle) & (first == last)) | jnp.isinf(total)
    # Of its own: x − mean, which others use too, XLA would write to memory on a CPU.
    opposite = jnp.where(alike, -first, total / -n)
    var = _total(jnp.square(x + opposite), axes) / n
    # It is no constant where it varies by more than the sum is off.
    constant = alike & (var <= 16 * jnp.square(off)) & jnp.isfinite(var)
    return Moments(
        count=jnp.full_like(total, n),
        # A division, which XLA does once for each feature: a choice of quotients it would
        # make again for each element of x.
        mean=jnp.where(constant, first, total) / jnp.where(constant, 1, n),
        var=jnp.where(alike & ~constant, var - jnp.square(off), var),
    )


def _measure_weighted(x: Operand, weights: Operand, axes: tuple[int, ...]) -> Moments:
    """The moments of weighted samples: Chan et al.'s corrected two-pass algorithm."""
    used, x, w = _used(x, weights)
    count = _count(clear(jnp.broadcast_to(w, jnp.shape(weights)), used), x.shape, axes)
    # A share is at most 1, so that no sum overflows where its result does not.
    seen = _seen(count)
    share = w / seen
    guess = _total(share * x, axes)
    # Under a mask nothing need be multiplied, which saves passes over x on a CPU.
    part, whole = (w, seen) if weights.dtype == bool else (share, 1)
    # It is off by some ulps, the squares of which overflow for the largest constants.
    shrink = jnp.where(jnp.abs(guess) > 2.0**60, 2.0**-80, 1)
    centred = clear((x - guess) * shrink, used)
    off = _total(part * centred, axes) / whole
    var = _total(part * jnp.square(centred), axes) / whole - jnp.square(off)
    # All variance of a constant is that of the guess.
    var = jnp.where(var <= jnp.square(off) / 1024, 0, var)
    return Moments(count, guess + off / shrink, var / shrink / shrink)


def _measure_jvp(
    axes: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Moments, Moments]:
    moments = _measure(*primals, axes)
    differentials = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    return moments, _differential(*primals, moments, *differentials, axes)


_measure.defjvp(_measure_jvp, symbolic_zeros=True)


# What a checkpoint is given is all that is kept of it: x, and no copy in float32.
@functools.partial(jax.checkpoint, static_argnums=5)
def _differential(
    x: Operand,
    weights: Operand | None,
    moments: Moments,
    dx: Operand | None,
    dw: Operand | None,
    axes: tuple[int, ...],
) -> Moments:
    """The differential of the moments, linear in dx and dw.

    dn = Σdw,  dμ = Σ(w·dx + dw·(x − μ))/n,  dσ² = Σ(2w·dx·(x − μ) + dw·((x − μ)² − σ²))/n
    """
    count, mean, var = moments
    # Without weights the count is a number: as an array it would be kept.
    n = _seen(count) if weights is not None else float(math.prod(take(x.shape, axes)) or 1)
    used, x, w = _used(x, weights)
    centred = x - mean
    dcount = dmean = dvar = jnp.zeros_like(mean)
    if dx is not None:
        dx = w * clear(jnp.asarray(dx, mean.dtype), used)
        dmean += _total(dx, axes)
        dvar += 2 * _total(dx * centred, axes)
    if dw is not None:
        dw = clear(jnp.broadcast_to(dw, x.shape), used)
        dcount += _total(dw, axes)
        dmean += _total(dw * centred, axes)
        dvar += _total(dw * (jnp.square(centred) - var), axes)
    return Moments(dcount, dmean / n, dvar / n)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _mean_square(
    x: Operand, weights: Operand | None, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """Σw and Σw·x²/Σw, with the reduced axes kept at size 1."""
    if weights is None:
        x = jnp.asarray(x, accumulation_dtype(x.dtype))
        n = float(math.prod(take(x.shape, axes)))
        square = _total(jnp.square(x), axes) / (n or 1)
        return jnp.full_like(square, n), square
    used, x, w = _used(x, weights)
    count = _count(clear(jnp.broadcast_to(w, jnp.shape(weights)), used), x.shape, axes)
    return count, _total(w / _seen(count) * jnp.square(x), axes)


def _mean_square_jvp(
    axes: tuple[int, ...], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    moments = _mean_square(*primals, axes)
    differentials = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    return moments, _square_differential(*primals, *moments, *differentials, axes)


_mean_square.defjvp(_mean_square_jvp, symbolic_zeros=True)


@functools.partial(jax.checkpoint, static_argnums=6)
def _square_differential(
    x: Operand,
    weights: Operand | None,
    count: Operand,
    square: Operand,
    dx: Operand | None,
    dw: Operand | None,
    axes: tuple[int, ...],
) -> tuple[Array, Array]:
    """The differential of both, linear in dx and dw.

    dn = Σdw,  dσ² = Σ(2w·x·dx + dw·(x² − σ²))/n
    """
    n = _seen(count) if weights is not None else float(math.prod(take(x.shape, axes)) or 1)
    used, x, w = _used(x, weights)
    dcount = dsquare = jnp.zeros_like(square)
    if dx is not None:
        dx = w * clear(jnp.asarray(dx, square.dtype), used)
        dsquare += 2 * _total(dx * x, axes)
    if dw is not None:
        dw = clear(jnp.broadcast_to(dw, x.shape), used)
        dcount += _total(dw, axes)
        dsquare += _total(dw * (jnp.square(x) - square), axes)
    return dcount, dsquare / n


def _used(x: Operand, weights: Operand | None) -> tuple[Array | None, Array, Array]:
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
    count = _total(w, axes) * float(math.prod(take(shape, tuple(repeated))))
    kept = [1 if i in axes else size for i, size in enumerate(shape)]
    return jnp.broadcast_to(count, kept)


def _seen(count: Array) -> Array:
    return jnp.where(count > 0, count, 1)


def _sample(x: Array, axes: tuple[int, ...], part: float) -> Array:
    """The sample that lies so far along the reduced axes: 0 is the first, 1 the last."""
    places = [int(part * (size - 1)) for size in x.shape]
    return x[
        tuple(
            slice(place, place + 1) if i in axes else slice(None)
            for i, place in enumerate(places)
        )
    ]


def _total(values: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sum(values, axes, keepdims=True)
