"""The moments of an array, and their derivative."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.axes import (
    Axis,
    Shape,
    canonical_axes,
    count_groups,
    sizes_of,
    spatial_axes_of_groups,
)
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import Operand, accumulation_dtype, as_floating
from jaxnorm._core.groups import Groups, share, total_of_groups
from jaxnorm._core.layouts import number_along, size_along
from jaxnorm._core.moments import Moments
from jaxnorm._core.residuals import keeping_only_x, reread, residual, total
from jaxnorm._core.variance.choice import Purpose, mean_and_variance, settled
from jaxnorm._core.variance.formulas import (
    Measured,
    count_of,
    seen_count,
    sum_over,
    used_samples,
)
from jaxnorm._core.weights import as_weights, clear


class Samples(NamedTuple):
    """Which elements of an array share a mean and variance.

    Attributes:
      axes: the axes along which the samples lie.
      groups: the groups of features that also share them.
      about_zero: whether to use 0 in place of the mean.
    """

    axes: tuple[int, ...]
    groups: Groups | None = None
    about_zero: bool = False


@renamed_arguments(axes="reduction_axes")
def measure(
    x: ArrayLike, reduction_axes: Axis, weights: ArrayLike | None = None
) -> Moments:
    """Returns the moments of `x` over `reduction_axes`.

    With weights w (1 when not given) over the reduced axes,

        n = Σw,  μ = Σw·x / n,  σ² = Σw·(x − μ)² / n.

    The variance takes another pass over x: E[x²] − μ² would cancel, losing every digit once
    |μ|/σ exceeds about 10³ in float32 (Chan, Golub & LeVeque 1983, "Algorithms for
    computing the sample variance"). The mean of a constant is that constant, to the last
    bit, and its variance is 0. Derivatives store x, its weights and its moments.

    Args:
      x: floating array of any rank.
      reduction_axes: the axis or axes to reduce; if empty, each element is its own sample.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the moments and get no gradient, even if they are NaN or
        infinite. A negative or NaN weight counts as 0.

    Returns:
      Moments with the shape of the axes not reduced, in at least float32.

    Raises:
      TypeError: x does not have a real floating dtype, or weights are complex.
      ValueError: an axis is out of range or repeated; weights do not broadcast.

    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> measure(x, 0)
    Moments(count=Array([2., 2.], dtype=float32), mean=Array([ 2., 20.], dtype=float32), var=Array([  1., 100.], dtype=float32))
    >>> measure(x, 0, weights=jnp.array([[True], [False]])).mean
    Array([ 1., 10.], dtype=float32)
    """  # noqa: E501 (a doctest's output cannot be broken)
    x = as_floating(x)
    return _measured(x, weights, Samples(canonical_axes(reduction_axes, x.ndim)))


@renamed_arguments(axes="reduction_axes")
def measure_about_zero(
    x: ArrayLike, reduction_axes: Axis, weights: ArrayLike | None = None
) -> Moments:
    """Returns the moments of `x` about 0 instead of its mean, for a root mean square.

        n = Σw,  μ = 0,  σ² = Σw·x² / n

    They merge like any others. The arguments, errors and derivatives are the same as for
    `measure`.

    >>> measure_about_zero(jnp.array([3.0, 4.0]), 0).var
    Array(12.5, dtype=float32)
    """
    x = as_floating(x)
    count, _, square = _measured(
        x, weights, Samples(canonical_axes(reduction_axes, x.ndim), about_zero=True)
    )
    return Moments(count, jnp.zeros_like(square), square)


@renamed_arguments(axes="reduction_axes", features="feature_axes")
def measure_groups(
    x: ArrayLike,
    reduction_axes: Axis,
    feature_axes: Axis,
    num_groups: int,
    weights: ArrayLike | None = None,
) -> Moments:
    """Returns the moments of `x` over `reduction_axes` and groups of its features.

    Consecutive features are split into `num_groups` groups of equal size; all features of a
    group have the same moments. Each feature is measured, and their few moments are merged,
    because XLA on a CPU is several times slower to reduce the spatial axes and the features
    of a group at once than to reduce the spatial axes alone.

    The other arguments, the errors and the derivatives are the same as for `measure`; also
    raises a ValueError if the groups do not divide the features, or if an axis is both a
    reduction and a feature axis.

    >>> measure_groups(jnp.array([[1.0, 3.0, 10.0, 30.0]]), 0, -1, num_groups=2).mean
    Array([ 2.,  2., 20., 20.], dtype=float32)
    """
    x = as_floating(x)
    features = canonical_axes(feature_axes, x.ndim)
    axes = spatial_axes_of_groups(x.shape, features, reduction_axes)
    number = count_groups(math.prod(sizes_of(x.shape, features)), num_groups, None)
    return _measured(x, weights, Samples(axes, Groups(features, number)))


def _measured(x: Array, weights: ArrayLike | None, samples: Samples) -> Moments:
    return measure_samples(x, None if weights is None else as_weights(weights, x), samples)


def measure_samples(x: Array, weights: Array | None, samples: Samples) -> Moments:
    """Returns the moments of checked operands, with the shape of the axes not reduced."""
    moments = _moments(x, weights, samples)
    return Moments(*(jnp.squeeze(each, samples.axes) for each in moments))


@functools.partial(jax.jit, static_argnums=2, inline=True)
@functools.partial(keeping_only_x, static_argnums=2)
def _moments(x: Operand, weights: Operand | None, samples: Samples) -> Moments:
    wide = jnp.asarray(x, accumulation_dtype(x.dtype))
    count, mean, _, var = measured(wide, x, weights, samples, "norm")
    return Moments(count, mean, var)


def measured(
    wide: Array, x: Operand, weights: Operand | None, samples: Samples, purpose: Purpose
) -> Measured:
    """Returns the moments of `wide`, with the reduced axes kept at size 1.

    `x` is the same array in its own dtype, and is the residual for the derivative. The
    derivative itself is with respect to `wide`, so that it is rounded only once complete.
    """
    return _measure(wide, lax.stop_gradient(x), weights, samples, purpose)


def _kept(found: Measured, weights: Operand | None) -> Measured:
    """Marks the moments that a derivative reads as residuals.

    The count is read only with weights, because without them it is a constant.
    """
    count = found.count if weights is None else residual(found.count)
    mean, var = residual((found.mean, found.var))
    return Measured(count, mean, found.rest, var)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _measure(
    wide: Operand,
    x: Operand,
    weights: Operand | None,
    samples: Samples,
    purpose: Purpose,
) -> Measured:
    del x
    if not size_along(wide.shape, samples.axes):
        kept = tuple(1 if i in samples.axes else n for i, n in enumerate(wide.shape))
        count, mean, var = Moments.empty(kept, wide.dtype)
        found = Measured(count, mean, jnp.zeros_like(mean), var)
    elif samples.about_zero:
        found = mean_square(wide, weights, samples.axes)
    else:
        found = mean_and_variance(wide, weights, samples.axes, purpose)
    if samples.groups is None:
        return found
    count, mean, _, var = found
    count, mean, var = settled(share(Moments(count, mean, var), samples.groups))
    mean = _once(mean, mean)
    return Measured(count, mean, jnp.zeros_like(mean), var)


def mean_square(x: Array, weights: Array | None, axes: tuple[int, ...]) -> Measured:
    """Returns the moments about 0, in one pass."""
    count = count_of(x, weights, axes)
    _, x, w = used_samples(x, weights)
    if weights is None:
        square = sum_over(jnp.square(x), axes) / seen_count(count)
    else:
        square = sum_over(w / seen_count(count) * jnp.square(x), axes)
    nothing = jnp.zeros_like(square)
    return Measured(count + nothing, nothing, nothing, square)


def _measure_jvp(
    samples: Samples,
    purpose: Purpose,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
) -> tuple[Measured, Measured]:
    wide, x, weights = primals
    if purpose == "output":
        purpose = "norm"
    found = _kept(_measure(wide, x, weights, samples, purpose), weights)
    dx, _, dw = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    x, (mean, var) = reread(wide, x, (found.mean, found.var))
    again = Moments(found.count, mean, var)
    differential = _differential(x, weights, again, dx, dw, samples)
    return found, differential


_measure.defjvp(_measure_jvp, symbolic_zeros=True)


def _differential(
    x: Operand,
    weights: Operand | None,
    moments: Moments,
    dx: Operand | None,
    dw: Operand | None,
    samples: Samples,
) -> Measured:
    """Returns the differential of the moments, linear in dx and dw.

    dn = Σdw,  dμ = Σ(w·dx + dw·(x − μ))/n,  dσ² = Σ(2w·dx·(x − μ) + dw·((x − μ)² − σ²))/n
    """
    count, mean, var = moments
    used, x, w = used_samples(x, weights)
    centred = x if samples.about_zero else clear(x - mean, used)

    def sum_of(values: Array) -> Array:
        each = total(values, samples.axes)
        if samples.groups is None:
            return each
        return total_of_groups(_once(each, mean), samples.groups)

    # Without weights the count is a constant: as an array it would be a residual.
    n = _number(x.shape, samples, x.dtype) if weights is None else seen_count(count)
    dcount, dmean, dvar = (jnp.zeros_like(each) for each in (count, mean, var))
    if dx is not None:
        # Weights divided by the count neither overflow nor underflow where weights would.
        dx = (w / n if weights is not None else 1) * clear(dx, used)
        scale = 1 if weights is not None else n
        dmean += sum_of(dx) / scale
        dvar += 2 * sum_of(dx * centred) / scale
    if dw is not None:
        dw = clear(jnp.broadcast_to(dw, x.shape), used)
        dcount += sum_of(dw)
        dmean += sum_of(dw / n * centred)
        dvar += sum_of(dw / n * (jnp.square(centred) - var))
    if samples.about_zero:
        dmean = jnp.zeros_like(dmean)
    return Measured(dcount, dmean, jnp.zeros_like(dmean), dvar)


def _number(shape: Shape, samples: Samples, dtype: Any) -> Array:
    """Returns the number of samples per mean, at least 1."""
    n = number_along(shape, samples.axes, dtype)
    if samples.groups is not None:
        features = size_along(shape, samples.groups.axes)
        n = n * (features // samples.groups.number)
    return seen_count(n)


def _once(vector: Array, mean: Array) -> Array:
    """Divides `vector` by 1, or by NaN where the mean is NaN.

    XLA does a division once per moment. Without one, where the features of a group share
    few moments, XLA would look them up again for each element of x.
    """
    nan = jnp.isnan(mean)
    return jnp.where(nan, 0, vector) / jnp.where(nan, jnp.nan, 1)
