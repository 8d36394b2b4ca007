"""Normalise, scale and shift: the arithmetic that every norm shares, and its derivative."""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from jaxnorm._core.axes import (
    Axis,
    Shape,
    canonical_axes,
    check_affine,
    complement,
    expand,
    is_sharded,
    take,
    varies,
)
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import Operand, accumulation_dtype, as_operand, check_number
from jaxnorm._core.moments import Moments
from jaxnorm._core.residuals import keeping_only_x, reread, spread
from jaxnorm._core.variance.formulas import Measured
from jaxnorm._core.weights import as_weights, clear, weighted

Rounding = Literal["once", "twice"]


def check_operands(
    x: Float[Array, "..."],
    features: tuple[int, ...],
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    epsilon: float,
    weights: ArrayLike | None,
) -> Shaped[Array, "..."] | None:
    """The weights, as an array of x's rank; all of them are checked.

    Raises for what no norm can take, looking at shapes, dtypes and epsilon alone.
    """
    check_affine(x.shape, features, scale=scale, bias=bias)
    for name, parameter in (("scale", scale), ("bias", bias)):
        if parameter is not None and jnp.iscomplexobj(parameter):
            raise TypeError(
                f"{name} is complex, but the output of a norm is real; give its real part."
            )
    check_number(epsilon=epsilon)
    if not epsilon >= 0:  # so that NaN is refused too
        raise ValueError(
            f"epsilon={epsilon}, but it is added to a variance under a root and must "
            "be at least 0; 1e-5 is usual."
        )
    return None if weights is None else as_weights(weights, x)


def check_rounding(rounding: Any) -> None:
    """Raises a ValueError unless it is one of those that there are."""
    if rounding not in get_args(Rounding):
        raise ValueError(
            f"rounding={rounding!r}, but one of {get_args(Rounding)} is expected."
        )


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
      moments: its moments over the axes `reduction_axes`, or running ones in their place.
      scale: γ, of the shape of the axes `feature_axes` of x; None is 1.
      bias: β, likewise; None is 0.
      reduction_axes: the axes over which the moments were taken.
      feature_axes: the axes over which scale and bias vary.
      epsilon: ε ≥ 0. A variance of 0 gives β exactly, also with ε = 0.
      weights: those the moments were taken with. What has weight 0 is normalised like
        the rest; but where it is not finite, or nothing has any weight, the output is
        β and does not depend on x.
      dtype: the dtype of y; None is that of x.
      rounding: "once", at the end, after all was computed in at least float32, as flax's
        Linen and torch do it; or "twice", as Llama does it: (x − μ)·(σ² + ε)^−½ is
        rounded to dtype, then scaled and shifted in dtype.

    Returns:
      y, in the shape of x.

    Raises:
      TypeError: x or dtype is not real floating.
      ValueError: shapes or axes that do not fit, a negative epsilon.

    >>> x = jnp.array([1.0, 3.0])
    >>> moments = Moments(jnp.array(2.0), jnp.array(2.0), jnp.array(1.0))
    >>> normalize(x, moments, reduction_axes=0, feature_axes=(), epsilon=0.0)
    Array([-1.,  1.], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    check_rounding(rounding)
    kept = complement(canonical_axes(reduction_axes, x.ndim), x.ndim)
    features = canonical_axes(feature_axes, x.ndim)
    check_moments(moments, take(x.shape, kept))
    weights = check_operands(x, features, scale, bias, epsilon, weights)
    how = How(float(epsilon), dtype, rounding, "given")
    return normalize_given(x, moments, scale, bias, weights, kept, features, how)


def wide_along(array: ArrayLike, axes: tuple[int, ...], x: Array) -> Array:
    """An array with these axes of x, or with all of them, in the rank of x.

    In the accumulation dtype of x.
    """
    wide = jnp.asarray(array).astype(accumulation_dtype(x.dtype))
    return wide if varies(wide, x.ndim, axes) else expand(wide, axes, x.ndim)


def wide_affine(
    x: Array, scale: ArrayLike | None, bias: ArrayLike | None, features: tuple[int, ...]
) -> tuple[Array | None, Array | None]:
    """Scale and bias (or None) as `wide_along` the features."""
    scale, bias = (
        None if each is None else wide_along(each, features, x) for each in (scale, bias)
    )
    return scale, bias


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
    """`normalize` of operands that have been checked; the moments have the axes `kept`."""
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
      dtype: the dtype of y.
      rounding: where y is rounded to it.
      moments: "within a kernel" if a GPU may keep them there, else "given".
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
) -> Array:
    """(x − μ)·γr + β, rounded as it is to be.

    All operands have the rank of `wide`; `x` is the same array, in its own dtype, and what
    is kept of it for the derivative.
    """
    one, zero = (jnp.full((1,) * wide.ndim, each, wide.dtype) for each in (1, 0))
    scale, bias = one if scale is None else scale, zero if bias is None else bias
    return _normalize(
        wide, lax.stop_gradient(x), moments, scale, bias, weights, how
    ).astype(how.dtype)


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
    # Cleared before as well, for NaN behind a mask to pass unseen by jax_debug_nans.
    centred = clear(clear(wide, usable) - moments.mean - moments.rest, usable)
    inverse = _inverse(moments.var, how)
    if how.rounding == "twice":
        scale, bias, normal = (
            _rounded(each, how.dtype) for each in (scale, bias, centred * inverse)
        )
        return _rounded(normal * scale, how.dtype) + bias
    # One factor of the size of the moments or features, so that x is multiplied once.
    return centred * (scale * inverse) + bias


def _rounded(values: Array, dtype: np.dtype) -> Array:
    """`values` as precise as dtype, in their own: XLA may leave out a cast there and back.

    It may for float16, too, whose smallest numbers reduce_precision would flush to 0.
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
    """Those of the operands; None is 0."""

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
    """The differential of y, linear in those given; None is 0.

    dy = γr·(dx − dμ) + (x − μ)·d(γr) + dβ
    """
    usable = _usable(x, moments, weights)
    inverse = inverse_deviation(moments.var, how.epsilon)
    # Of y's type: it varies along each mapped axis along which one of the operands does.
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
    """The product of r, a vector of the shape of the moments, and one of that of the scale.

    r is multiplied last on a CPU, whose sum of g·x̂ is faster than a product of g·(x − μ)
    with r; elsewhere first, so that Σg·(x − μ) does not wait for r.
    """

    def last(inverse: Array, vector: Array | None, scale: Array) -> Array:
        return inverse * (scale if vector is None else _product(vector, scale))

    def first(inverse: Array, vector: Array | None, scale: Array) -> Array:
        return _product(inverse if vector is None else inverse * vector, scale)

    return lax.platform_dependent(inverse, vector, scale, cpu=last, default=first)


def _product(vector: Array, scale: Array) -> Array:
    """What has the shape of the moments, times the scale, as an outer product of them.

    Where both have an axis of their own, as in layer normalisation, the transpose is then
    a matrix times a vector, which XLA on a CPU does several times faster than it
    multiplies and sums. Elsewhere XLA makes these of it again. On a mesh with explicit
    axes that would need to be told how its result is sharded.
    """
    along, across = (
        [i for i, size in enumerate(each.shape) if size != 1] for each in (vector, scale)
    )
    if set(across) <= set(along) or is_sharded(vector) or is_sharded(scale):
        return vector * scale
    both = sorted({*along, *across})
    product = jnp.einsum(
        vector.reshape(take(vector.shape, tuple(along))),
        along,
        scale.reshape(take(scale.shape, tuple(across))),
        across,
        both,
        precision=lax.Precision.HIGHEST,
    )
    return expand(product, tuple(both), vector.ndim)


def _usable(x: Operand, moments: Measured, weights: Operand | None) -> Array | None:
    """Where x is normalised, the rest giving β; None is everywhere."""
    if weights is None:
        return None
    return weighted(jnp.asarray(weights)) | (jnp.isfinite(x) & (moments.count > 0))


def _inverse(var: Array, how: How) -> Array:
    """r; without a choice where it may stay within a kernel, which that would break."""
    outside = functools.partial(inverse_deviation, epsilon=how.epsilon)
    if how.moments == "given":
        return outside(var)
    within = functools.partial(_within_a_kernel, epsilon=how.epsilon)
    return lax.platform_dependent(var, cuda=within, rocm=within, default=outside)


def _within_a_kernel(var: Array, epsilon: float) -> Array:
    return lax.rsqrt(jnp.maximum(var + epsilon, jnp.finfo(var.dtype).tiny))


def inverse_deviation(var: Array, epsilon: float) -> Array:
    """The factor (σ² + ε)^−½: 0 for a constant even if ε is, NaN if σ² overflowed."""
    shifted = var + epsilon
    # A factor of 0 would give β for every x, where a large deviation is meant.
    shifted = jnp.where(jnp.isinf(shifted), jnp.nan, shifted)
    # The root comes last: XLA takes it once a feature, and what follows once an element.
    return lax.rsqrt(jnp.where(shifted == 0, jnp.inf, shifted))


def check_moments(moments: Any, shape: Shape) -> None:
    """Raises an error unless these are Moments of this shape."""
    if not isinstance(moments, Moments):
        raise TypeError(
            f"moments is a {type(moments).__name__}, but Moments(count, mean, var) are "
            "expected, as from measure(x, reduced) or an estimator's read(state)."
        )
    shapes = [jnp.shape(each) for each in moments]
    if any(each != shape for each in shapes):
        raise ValueError(
            f"count, mean and var of the moments have the shapes {shapes}, but what is not "
            f"reduced of x has shape {shape}; measure x over the same axes as are given "
            "in reduction_axes=."
        )
