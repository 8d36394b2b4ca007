"""Measuring: the moments of an array, and their derivative."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm.axes import Axis, canonical_axes, count_groups, positions, take
from jaxnorm.groups import Groups, share, total_of_groups
from jaxnorm.masking import as_weights, clear
from jaxnorm.moments import Moments
from jaxnorm.precision import Operand, accumulation_dtype, as_floating
from jaxnorm.two_pass import (
    count_samples,
    equal_samples,
    mean_square,
    seen_count,
    sum_over,
    used_samples,
    weighted_samples,
)


class Samples(NamedTuple):
    """Which elements of an array are samples of one mean and variance.

    Attributes:
      axes: along these.
      groups: and those of the features of a group.
      about_zero: whether 0 stands in place of the mean.
    """

    axes: tuple[int, ...]
    groups: Groups | None = None
    about_zero: bool = False


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
    return _measured(x, weights, Samples(canonical_axes(axes, x.ndim)))


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
    count, _, square = _measured(
        x, weights, Samples(canonical_axes(axes, x.ndim), about_zero=True)
    )
    return Moments(count, jnp.zeros_like(square), square)


def measure_groups(
    x: ArrayLike,
    axes: Axis,
    features: Axis,
    num_groups: int,
    weights: ArrayLike | None = None,
) -> Moments:
    """The moments of `x` over `axes` and groups of its features, for each feature.

    The features, in their order, are split into `num_groups` of one size; those of a group
    have the same moments. On a CPU, XLA is several times slower to reduce positions and
    the features of a group at once than positions alone; so each feature is measured, and
    what is merged are few moments.

    The other arguments, the errors and derivatives are those of `measure`; a ValueError,
    too, if the groups do not divide the features, or an axis is of both.

    >>> measure_groups(jnp.array([[1.0, 3.0, 10.0, 30.0]]), 0, -1, num_groups=2).mean
    Array([ 2.,  2., 20., 20.], dtype=float32)
    """
    x = as_floating(x)
    features = canonical_axes(features, x.ndim)
    axes = positions(x.shape, features, axes)
    number = count_groups(math.prod(take(x.shape, features)), num_groups, None)
    return _measured(x, weights, Samples(axes, Groups(features, number)))


def _measured(x: Array, weights: ArrayLike | None, samples: Samples) -> Moments:
    if weights is not None:
        weights = as_weights(weights, x)
    moments = _measure(x, weights, samples)
    return Moments(*(jnp.squeeze(each, samples.axes) for each in moments))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _measure(x: Operand, weights: Operand | None, samples: Samples) -> Moments:
    """The moments, with the reduced axes kept at size 1."""
    if samples.about_zero:
        count, mean, var = mean_square(x, weights, samples.axes)
    elif weights is None:
        x = jnp.asarray(x, accumulation_dtype(x.dtype))
        count, mean, var = equal_samples(x, samples.axes)
    else:
        count, mean, var = weighted_samples(x, weights, samples.axes)
    if weights is not None:
        # Weights may be the same on all shards of x. The count's derivative is not.
        count = count + jnp.zeros_like(var)
    if samples.groups is not None:
        count, mean, var = share(Moments(count, mean, var), samples.groups)
        mean = _once(mean, mean)
    return Moments(count, mean, var)


def _measure_jvp(
    samples: Samples, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Moments, Moments]:
    moments = _measure(*primals, samples)
    differentials = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    return moments, _differential(*primals, moments, *differentials, samples)


_measure.defjvp(_measure_jvp, symbolic_zeros=True)


# What a checkpoint is given is all that is kept of it: x, and no copy in float32.
@functools.partial(jax.checkpoint, static_argnums=5)
def _differential(
    x: Operand,
    weights: Operand | None,
    moments: Moments,
    dx: Operand | None,
    dw: Operand | None,
    samples: Samples,
) -> Moments:
    """The differential of the moments, linear in dx and dw.

    dn = Σdw,  dμ = Σ(w·dx + dw·(x − μ))/n,  dσ² = Σ(2w·dx·(x − μ) + dw·((x − μ)² − σ²))/n
    """
    count, mean, var = moments
    used, x, w = used_samples(x, weights)
    centred = x if samples.about_zero else x - mean

    def total(values: Array) -> Array:
        each = sum_over(values, samples.axes)
        if samples.groups is None:
            return each
        return total_of_groups(_once(each, mean), samples.groups)

    dcount = dmean = dvar = jnp.zeros_like(var)
    if dx is not None:
        dx = w * clear(jnp.asarray(dx, var.dtype), used)
        dmean += total(dx)
        dvar += 2 * total(dx * centred)
    if dw is not None:
        dw = clear(jnp.broadcast_to(dw, x.shape), used)
        dcount += total(dw)
        dmean += total(dw * centred)
        dvar += total(dw * (jnp.square(centred) - var))
    # Without weights the count is a number: as an array it would be kept.
    n = _number(x.shape, samples) if weights is None else seen_count(count)
    return Moments(dcount, dmean / n, dvar / n)


def _number(shape: tuple[int, ...], samples: Samples) -> float:
    """How many samples there are of each mean, at least 1."""
    n = count_samples(shape, samples.axes) or 1.0
    if samples.groups is None:
        return n
    features = count_samples(shape, samples.groups.axes)
    return n * features / samples.groups.number


def _once(vector: Array, mean: Array) -> Array:
    """`vector`, where the mean is not NaN.

    A division, though by 1, XLA does once for each moment. Where they are few that a group
    shares, it would else look up whose they are again for each element of x.
    """
    nan = jnp.isnan(mean)
    return jnp.where(nan, 0, vector) / jnp.where(nan, jnp.nan, 1)
