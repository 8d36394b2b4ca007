"""Normalise, scale and shift: the arithmetic that every norm shares, and its derivative."""

import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Shaped

from jaxnorm.axes import (
    Axis,
    canonical_axes,
    check_features,
    complement,
    expand,
    is_sharded,
    take,
)
from jaxnorm.masking import as_weights, clear, weighted
from jaxnorm.moments import Moments
from jaxnorm.precision import Operand, accumulation_dtype, as_operand, check_number

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
    check_features(take(x.shape, features), scale=scale, bias=bias)
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


def normalize(
    x: ArrayLike,
    moments: Moments,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    reduced: Axis,
    features: Axis,
    epsilon: float,
    weights: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Normalises `x` with given moments, then scales and shifts it.

        y = (x − μ)·γ·(σ² + ε)^−½ + β

    Args:
      x: floating array of any rank.
      moments: its moments over the axes `reduced`, or running ones in their place.
      scale: γ, of the shape of the axes `features` of x; None is 1.
      bias: β, likewise; None is 0.
      reduced: the axes over which the moments were taken.
      features: the axes over which scale and bias vary.
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
    >>> normalize(x, moments, reduced=0, features=(), epsilon=0.0)
    Array([-1.,  1.], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    if rounding not in get_args(Rounding):
        raise ValueError(
            f"rounding={rounding!r}, but one of {get_args(Rounding)} is expected."
        )
    kept = complement(canonical_axes(reduced, x.ndim), x.ndim)
    features = canonical_axes(features, x.ndim)
    _check_moments(moments, take(x.shape, kept))
    weights = check_operands(x, features, scale, bias, epsilon, weights)

    def over(axes: tuple[int, ...], array: ArrayLike) -> Array:
        wide = jnp.asarray(array).astype(accumulation_dtype(x.dtype))
        return expand(wide, axes, x.ndim)

    return _normalize(
        x,
        Moments(*(over(kept, each) for each in moments)),
        over((), 1) if scale is None else over(features, scale),
        over((), 0) if bias is None else over(features, bias),
        weights,
        float(epsilon),
        dtype,
        rounding,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(5, 6, 7))
def _normalize(
    x: Operand,
    moments: Moments,
    scale: Operand,
    bias: Operand,
    weights: Operand | None,
    epsilon: float,
    dtype: np.dtype,
    rounding: Rounding,
) -> Array:
    """(x − μ)·γr + β, all in the rank of x, and all but x in its accumulation dtype."""
    usable = _usable(x, moments, weights)
    # Cleared before as well, for NaN behind a mask to pass unseen by jax_debug_nans.
    x = clear(jnp.asarray(x, moments.mean.dtype), usable)
    centred = clear(x - moments.mean, usable)
    inverse = inverse_deviation(moments.var, epsilon)
    if rounding == "twice":
        scale, bias, normalized = (
            _rounded(each, dtype) for each in (scale, bias, centred * inverse)
        )
        return (_rounded(normalized * scale, dtype) + bias).astype(dtype)
    # One factor of the size of the moments or features, so that x is multiplied once.
    return (centred * (scale * inverse) + bias).astype(dtype)


def _rounded(values: Array, dtype: np.dtype) -> Array:
    """`values` as precise as dtype, in their own: XLA may leave out a cast there and back.

    It may for float16, too, whose smallest numbers reduce_precision would flush to 0.
    """
    if dtype == jnp.bfloat16:
        return lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7)
    return values.astype(dtype).astype(values.dtype)


def _normalize_jvp(
    epsilon: float,
    dtype: np.dtype,
    rounding: Rounding,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
) -> tuple[Array, Array]:
    y = _normalize(*primals, epsilon, dtype, rounding)
    dx, dmoments, dscale, dbias, _ = tangents
    differentials = (
        None if isinstance(each, SymbolicZero) else each
        for each in (dx, dmoments.mean, dmoments.var, dscale, dbias)
    )
    dy = _differential(*primals, *differentials, epsilon)
    return y, dy.astype(dtype)


_normalize.defjvp(_normalize_jvp, symbolic_zeros=True)


# What a checkpoint is given is all that is kept of it: x, and no copy in float32.
@functools.partial(jax.checkpoint, static_argnums=10)
def _differential(
    x: Operand,
    moments: Moments,
    scale: Operand,
    bias: Operand,
    weights: Operand | None,
    dx: Operand | None,
    dmean: Operand | None,
    dvar: Operand | None,
    dscale: Operand | None,
    dbias: Operand | None,
    epsilon: float,
) -> Array:
    """The differential of y, linear in those given; None is 0.

    dy = γr·(dx − dμ) + (x − μ)·r·(dγ − ½γr²·dσ²) + dβ
    """
    _, mean, var = moments
    usable = _usable(x, moments, weights)
    x = clear(jnp.asarray(x, mean.dtype), usable)
    inverse = inverse_deviation(var, epsilon)
    # Of y's type: it varies along each mapped axis along which one of the operands does.
    nothing = jnp.zeros_like(clear(x + mean + scale + bias, usable))
    dy = dshift = dgain = jnp.zeros_like(mean)
    if dx is not None:
        dy = dy + scale * inverse * jnp.asarray(dx, mean.dtype)
    if dmean is not None:
        dshift = dshift + _product(-inverse * dmean, scale)
    if dscale is not None:
        dgain = dgain + dscale
    if dvar is not None:
        # In this order r³ does not overflow where the result does not.
        dgain = dgain + _product(-inverse * (inverse * dvar) / 2, scale)
    if not (dscale is None and dvar is None):
        dy = dy + (x - mean) * (inverse * dgain)
    if dbias is not None and usable is None:
        return nothing + dy + (dshift + dbias)
    dy = nothing + clear(dy + dshift, usable)
    return dy if dbias is None else dy + dbias


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


def _usable(x: Operand, moments: Moments, weights: Operand | None) -> Array | None:
    """Where x is normalised, the rest giving β; None is everywhere."""
    if weights is None:
        return None
    return weighted(jnp.asarray(weights)) | (jnp.isfinite(x) & (moments.count > 0))


def inverse_deviation(var: Array, epsilon: float) -> Array:
    """The factor (σ² + ε)^−½: 0 for a constant even if ε is, NaN if σ² overflowed."""
    shifted = var + epsilon
    # A factor of 0 would give β for every x, where a large deviation is meant.
    shifted = jnp.where(jnp.isinf(shifted), jnp.nan, shifted)
    # The root comes last: XLA takes it once a feature, and what follows once an element.
    return lax.rsqrt(jnp.where(shifted == 0, jnp.inf, shifted))


def _check_moments(moments: Any, shape: tuple[int, ...]) -> None:
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
            "in reduced=."
        )
