"""Normalise, scale and shift: the arithmetic shared by all norms, and its derivative."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, Shape, canonical_axes, complement, expand, sizes_of
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import Operand, accumulation_dtype, as_operand
from jaxnorm._core.moments import Moments
from jaxnorm._core.operands import (
    Rounding,
    check_operands,
    check_rounding,
    wide_affine,
    wide_along,
)
from jaxnorm._core.residuals import keeping_only_x, reread, spread
from jaxnorm._core.sharding import is_sharded
from jaxnorm._core.variance.formulas import Measured
from jaxnorm._core.weights import clear, weighted


@renamed_arguments(reduced="reduction_axes", features="feature_axes")
def normalize(
    x: ArrayLike,
    moments: Moments,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    reduction_axes: Axis,
    feature_axes: Axis,
    epsilon: float,
    weights: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Normalises `x` with given moments, then scales and shifts it.

        y = (x − μ)·γ·(σ² + ε)^−½ + β

    Args:
      x: floating array of any rank.
      moments: the moments of x over `reduction_axes`, or running ones in their place.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      reduction_axes: the axes over which the moments were taken.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      epsilon: ε ≥ 0, added to the variance. A variance of 0 gives exactly β, even if ε = 0.
      weights: the weights with which the moments were taken. Elements with weight 0 are
        normalised like the rest, except that where they are not finite, or where all
        weights are 0, the output is β and does not depend on x.
      dtype: output dtype; defaults to `x.dtype`.
      rounding: "once" to compute in at least float32 and round at the end, as flax's Linen
        and torch do; or "twice", as Llama does: (x − μ)·(σ² + ε)^−½ is rounded to the
        output dtype, then scaled and shifted in that dtype.

    Returns:
      y, with the shape of x.

    Raises:
      TypeError: x does not have a real floating dtype, or dtype is not one.
      ValueError: shapes or axes do not fit, or epsilon is negative.

    >>> x = jnp.array([1.0, 3.0])
    >>> moments = Moments(jnp.array(2.0), jnp.array(2.0), jnp.array(1.0))
    >>> normalize(x, moments, reduction_axes=0, feature_axes=(), epsilon=0.0)
    Array([-1.,  1.], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    check_rounding(rounding)
    kept = complement(canonical_axes(reduction_axes, x.ndim), x.ndim)
    features = canonical_axes(feature_axes, x.ndim)
    check_moments(moments, sizes_of(x.shape, kept))
    weights = check_operands(x, features, scale, bias, epsilon, weights)
    how = How(float(epsilon), dtype, rounding, "given")
    return normalize_given(x, moments, scale, bias, weights, kept, features, how)


def normalize_given(
    x: Array,
    moments: Moments,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    kept: tuple[int, ...],
    features: tuple[int, ...],
    how: "How",
) -> Array:
    """`normalize` for checked operands; the moments have the axes `kept`."""
    moments = Moments(*(wide_along(each, kept, x) for each in moments))
    return _normalize_given(
        x, moments, *wide_affine(x, scale, bias, features), weights, how
    )


@functools.partial(jax.jit, static_argnums=5, inline=True)
@functools.partial(keeping_only_x, static_argnums=5)
def _normalize_given(
    x: Array,
    moments: Moments,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    how: "How",
) -> Array:
    count, mean, var = moments
    found = Measured(count, mean, jnp.zeros_like(mean), var)
    wide = jnp.asarray(x, accumulation_dtype(x.dtype))
    return normalized(wide, x, found, scale, bias, weights, how)


class How(NamedTuple):
    """How an array is normalised.

    Attributes:
      epsilon: ε.
      dtype: the output dtype.
      rounding: when to round to the output dtype.
      moments: "within a kernel" if a GPU may keep them in its kernel, else "given".
    """

    epsilon: float
    dtype: np.dtype
    rounding: Rounding
    moments: Literal["given", "within a kernel"]


def normalized(
    wide: Array,
    x: Operand,
    moments: Measured,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    how: How,
    finish: Callable[[Array], Array] | None = None,
) -> Array:
    """Returns (x − μ)·γr + β, rounded as `how` specifies, after `finish` if that is given.

    All operands have the rank of `wide`. `x` is the same array in its own dtype, and is the
    residual for the derivative.
    """
    one, zero = (jnp.full((1,) * wide.ndim, each, wide.dtype) for each in (1, 0))
    scale, bias = one if scale is None else scale, zero if bias is None else bias
    y = _normalize(wide, lax.stop_gradient(x), moments, scale, bias, weights, how)
    return (y if finish is None else finish(y)).astype(how.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _normalize(
    wide: Operand,
    x: Operand,
    moments: Measured,
    scale: Operand,
    bias: Operand,
    weights: Operand | None,
    how: How,
) -> Array:
    usable = _usable(x, moments, weights)
    # Cleared before as well, so that masked NaN does not trigger jax_debug_nans.
    centred = clear(clear(wide, usable) - moments.mean - moments.rest, usable)
    inverse = _inverse(moments.var, how)
    if how.rounding == "twice":
        scale, bias, normal = (
            _rounded(each, how.dtype) for each in (scale, bias, centred * inverse)
        )
        return _rounded(normal * scale, how.dtype) + bias
    operands = centred, inverse, scale, bias
    if how.moments == "given":
        return _by_one_factor(*operands)
    return lax.platform_dependent(
        *operands, cuda=_factor_by_factor, rocm=_factor_by_factor, default=_by_one_factor
    )


def _by_one_factor(centred: Array, inverse: Array, scale: Array, bias: Array) -> Array:
    """Multiplies x once, by a factor with the shape of the moments or features."""
    return centred * (scale * inverse) + bias


def _factor_by_factor(centred: Array, inverse: Array, scale: Array, bias: Array) -> Array:
    """Multiplies by the scale last, so that XLA for a GPU can fuse what computes it.

    Otherwise it does not compile a norm to a single kernel if the scale is computed or
    varies between samples.
    """
    return centred * inverse * scale + bias


def _rounded(values: Array, dtype: np.dtype) -> Array:
    """Rounds `values` to the precision of dtype, but keeps their dtype.

    XLA may leave out a cast there and back, so bfloat16 uses reduce_precision. For float16,
    XLA may do so as well, but reduce_precision would flush its smallest numbers to 0.
    """
    if dtype == jnp.bfloat16:
        return lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)
    return values.astype(dtype).astype(values.dtype)


def _normalize_jvp(
    how: How, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Array]:
    if how.moments == "within a kernel":
        how = how._replace(moments="given")
    y = _normalize(*primals, how)
    dx, _, dmoments, dscale, dbias, _ = tangents
    differentials = Differentials(
        *(
            None if isinstance(each, SymbolicZero) else each
            for each in (dx, dmoments.mean, dmoments.var, dscale, dbias)
        )
    )
    wide, x, moments, scale, bias, weights = primals
    x, (moments, scale, bias) = reread(wide, x, (moments, scale, bias))
    return y, _differential(x, moments, scale, bias, weights, differentials, how)


_normalize.defjvp(_normalize_jvp, symbolic_zeros=True)


class Differentials(NamedTuple):
    """The differentials of the operands; None is 0."""

    x: Array | None
    mean: Array | None
    var: Array | None
    scale: Array | None
    bias: Array | None


def _differential(
    x: Array,
    moments: Measured,
    scale: Array,
    bias: Array,
    weights: Operand | None,
    given: Differentials,
    how: How,
) -> Array:
    """Returns the differential of y, linear in those given; None is 0.

    dy = γr·(dx − dμ) + (x − μ)·d(γr) + dβ
    """
    usable = _usable(x, moments, weights)
    inverse = inverse_deviation(moments.var, how.epsilon)
    # Has the type of y, which varies over every mapped axis over which an operand varies.
    nothing = jnp.zeros_like(clear(x + moments.mean + scale + bias, usable))
    dx, dmean, dvar, dscale, dbias = given
    into = functools.partial(spread, over=x)
    dy = dshift = jnp.zeros_like(inverse)
    if dx is not None:
        dy = dy + scale * inverse * dx
    if dmean is not None:
        dshift = dshift + into(dmean, lambda d: _product(-inverse * d, scale))
    dgains = []
    if dscale is not None:
        dgains.append(into(dscale, lambda d: _by_inverse(inverse, None, d)))
    if dvar is not None:
        # In this order r³ does not overflow where the result does not.
        dgains.append(
            into(dvar, lambda d: _by_inverse(inverse, -inverse * (inverse * d) / 2, scale))
        )
    if dgains:
        dy = dy + clear(clear(x, usable) - moments.mean, usable) * sum(dgains)
    if dbias is not None:
        dbias = into(dbias, lambda d: d)
    if dbias is not None and usable is None:
        return nothing + dy + (dshift + dbias)
    dy = nothing + clear(dy + dshift, usable)
    return dy if dbias is None else dy + dbias


def _by_inverse(inverse: Array, vector: Array | None, scale: Array) -> Array:
    """Returns r times a vector with the shape of the moments, times one shaped as scale.

    On a CPU, r is multiplied last, because summing g·x̂ is faster than multiplying g·(x − μ)
    by r; elsewhere it comes first, so that Σg·(x − μ) does not wait for r.
    """

    def last(inverse: Array, vector: Array | None, scale: Array) -> Array:
        return inverse * (scale if vector is None else _product(vector, scale))

    def first(inverse: Array, vector: Array | None, scale: Array) -> Array:
        return _product(inverse if vector is None else inverse * vector, scale)

    return lax.platform_dependent(inverse, vector, scale, cpu=last, default=first)


def _product(vector: Array, scale: Array) -> Array:
    """Returns a vector with the shape of the moments, times the scale.

    Where each has an axis that the other lacks, as in layer normalisation, this is an outer
    product. Its transpose is then a matrix times a vector, which XLA on a CPU computes
    several times faster than a product and a sum; on other platforms XLA turns it back into
    these. On a mesh with explicit axes, it would need to know how the result is sharded.
    """
    along, across = (
        [i for i, size in enumerate(each.shape) if size != 1] for each in (vector, scale)
    )
    if set(across) <= set(along) or is_sharded(vector) or is_sharded(scale):
        return vector * scale
    both = sorted({*along, *across})
    product = jnp.einsum(
        vector.reshape(sizes_of(vector.shape, tuple(along))),
        along,
        scale.reshape(sizes_of(scale.shape, tuple(across))),
        across,
        both,
        precision=lax.Precision.HIGHEST,
    )
    return expand(product, tuple(both), vector.ndim)


def _usable(x: Operand, moments: Measured, weights: Operand | None) -> Array | None:
    """Returns where x is normalised, and not replaced by β; None means everywhere."""
    if weights is None:
        return None
    return weighted(jnp.asarray(weights)) | (jnp.isfinite(x) & (moments.count > 0))


def _inverse(var: Array, how: How) -> Array:
    """Returns r; within a kernel without `jnp.where`, which would break the kernel up."""
    outside = functools.partial(inverse_deviation, epsilon=how.epsilon)
    if how.moments == "given":
        return outside(var)
    within = functools.partial(_within_a_kernel, epsilon=how.epsilon)
    return lax.platform_dependent(var, cuda=within, rocm=within, default=outside)


def _within_a_kernel(var: Array, epsilon: float) -> Array:
    return lax.rsqrt(jnp.maximum(var + epsilon, jnp.finfo(var.dtype).tiny))


def inverse_deviation(var: Array, epsilon: float) -> Array:
    """Returns (σ² + ε)^−½: 0 for a constant even if ε = 0, and NaN if σ² overflowed."""
    shifted = var + epsilon
    # A factor of 0 would give β for every x, and hide the overflow.
    shifted = jnp.where(jnp.isinf(shifted), jnp.nan, shifted)
    # The root comes last: XLA takes it once per feature, but later operations per element.
    return lax.rsqrt(jnp.where(shifted == 0, jnp.inf, shifted))


def check_moments(moments: Any, shape: Shape) -> None:
    """Raises an error unless `moments` are Moments of this shape."""
    if not isinstance(moments, Moments):
        raise TypeError(
            f"moments is a {type(moments).__name__}, but Moments(count, mean, var) are "
            "expected, as from measure(x, reduction_axes) or an estimator's read(state)."
        )
    shapes = [jnp.shape(each) for each in moments]
    if any(each != shape for each in shapes):
        raise ValueError(
            f"count, mean and var of the moments have the shapes {shapes}, but the axes of "
            f"x that are not reduced have shape {shape}; measure x over the same axes as "
            "given in reduction_axes=."
        )
