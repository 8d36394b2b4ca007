"""Weights and masks: which elements count, and how the others are excluded."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from jaxnorm._core.axes import check_weights
from jaxnorm._core.dtypes import accumulation_dtype


def as_weights(weights: ArrayLike, x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """Returns weights with the rank of x, as a mask or in x's accumulation dtype.

    Raises an error for weights that do not fit. Weights that need no conversion are not
    copied, because a derivative would store both copies.
    """
    if not isinstance(weights, jax.Array):
        weights = jnp.asarray(weights)
    check_weights(x.shape, weights)
    if jnp.issubdtype(weights.dtype, jnp.complexfloating):
        raise TypeError(
            f"weights have dtype {weights.dtype}, but a boolean mask or non-negative "
            "real weights are expected; give their real part."
        )
    if weights.ndim < x.ndim:
        weights = jnp.expand_dims(weights, tuple(range(x.ndim - weights.ndim)))
    if weights.dtype == bool:
        return weights  # a mask has no derivative, so none is computed
    return weights.astype(accumulation_dtype(x.dtype))


def one_weighting(mask: ArrayLike | None, weights: ArrayLike | None) -> ArrayLike | None:
    """Returns the weights, or flax's `mask`, in which non-zero numbers count as True.

    Raises a ValueError if both are given.
    """
    if mask is not None and weights is not None:
        raise ValueError(
            "a mask and weights are given, but only one is expected; give weights of 0 "
            "where the mask is False, as in weights=weights * mask."
        )
    return weights if mask is None else jnp.asarray(mask, bool)


def weighted(weights: Shaped[Array, "..."]) -> Bool[Array, "..."]:
    """Returns where weights count: a mask itself, or where numbers are positive.

    >>> weighted(jnp.array([0.5, 0.0, -1.0]))
    Array([ True, False, False], dtype=bool)
    """
    return weights if weights.dtype == bool else weights > 0


def clear(
    values: Float[Array, "..."], used: Bool[Array, "..."] | None
) -> Float[Array, "..."]:
    """Returns `values` where they are used (None: everywhere), and 0 elsewhere.

    Multiplying by a weight of 0 would not work: 0·NaN is NaN, and so is its derivative.

    >>> clear(jnp.array([1.0, jnp.nan]), jnp.array([True, False]))
    Array([1., 0.], dtype=float32)
    """
    return values if used is None else jnp.where(used, values, 0)
