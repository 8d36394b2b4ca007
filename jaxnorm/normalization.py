"""Normalise, scale and shift: the arithmetic that every norm shares."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm.axes import (
    Axis,
    canonical_axes,
    check_features,
    check_weights,
    complement,
    expand,
    take,
)
from jaxnorm.moments import Moments, as_weights
from jaxnorm.precision import accumulation_dtype, as_floating, check_number, widen


def check_operands(
    x: Float[Array, "..."],
    features: tuple[int, ...],
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    epsilon: float,
    weights: ArrayLike | None,
) -> None:
    """Raises for what no norm can take, looking at shapes, dtypes and epsilon alone."""
    check_features(take(x.shape, features), scale=scale, bias=bias)
    for name, parameter in (("scale", scale), ("bias", bias)):
        if parameter is not None and jnp.iscomplexobj(parameter):
            raise TypeError(
                f"{name} is complex, but the output of a norm is real; give its real part."
            )
    check_weights(x.shape, weights)
    check_number(epsilon=epsilon)
    if not epsilon >= 0:  # so that NaN is refused too
        raise ValueError(
            f"epsilon={epsilon}, but it is added to a variance under a root and must "
            "be at least 0; 1e-5 is usual."
        )


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

    Returns:
      y, in the shape of x, computed in at least float32 and rounded once at the end.

    Raises:
      TypeError: x or dtype is not real floating.
      ValueError: shapes or axes that do not fit, a negative epsilon.

    >>> x = jnp.array([1.0, 3.0])
    >>> moments = Moments(jnp.array(2.0), jnp.array(2.0), jnp.array(1.0))
    >>> normalize(x, moments, reduced=0, features=(), epsilon=0.0)
    Array([-1.,  1.], dtype=float32)
    """
    x = as_floating(x)
    dtype = x.dtype if dtype is None else dtype
    x = widen(x, dtype)
    kept = complement(canonical_axes(reduced, x.ndim), x.ndim)
    features = canonical_axes(features, x.ndim)
    _check_moments(moments, take(x.shape, kept))
    check_operands(x, features, scale, bias, epsilon, weights)
    accumulated = accumulation_dtype(x.dtype)

    def over(axes: tuple[int, ...], array: ArrayLike) -> Float[Array, "..."]:
        return expand(jnp.asarray(array).astype(accumulated), axes, x.ndim)

    count, mean, var = (over(kept, each) for each in moments)
    centred = x.astype(accumulated) - mean
    if weights is not None:
        usable = (as_weights(weights, x) > 0) | (jnp.isfinite(x) & (count > 0))
        centred = jnp.where(usable, centred, 0)
    # One factor of the size of the moments or features, so that x is multiplied once.
    factor = _inverse_deviation(var, epsilon)
    if scale is not None:
        factor = factor * over(features, scale)
    y = centred * factor
    if bias is not None:
        y = y + over(features, bias)
    return y.astype(dtype)


def _inverse_deviation(
    var: Float[Array, "*shape"], epsilon: float
) -> Float[Array, "*shape"]:
    """(σ² + ε)^−½, and 0 where that is infinite, so that a constant feature gives β."""
    shifted = var + epsilon
    zero = shifted == 0
    return jnp.where(zero, 0, lax.rsqrt(jnp.where(zero, 1, shifted)))


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
