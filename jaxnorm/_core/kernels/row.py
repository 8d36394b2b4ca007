"""The derivative of one row, which both kernels compute alike."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

ULP = 2.0**-23
LARGEST = 3.4028235e38


def gradient_of_rows(
    x: Array,
    scaled: Array,
    mean: Callable[[Array], Array],
    *,
    epsilon: float,
    about_zero: bool,
) -> tuple[Array, Array]:
    """dx, and x̂ with which the gradient of the scale is summed.

    With s = γ·g and r = (σ² + ε)^−½,  dx = r·(s − mean(s) − x̂·mean(s·x̂)).

    Args:
      x: rows in float32.
      scaled: s, likewise.
      mean: of each row, in a shape that broadcasts against it.
      epsilon: ε.
      about_zero: whether 0 stands in place of the mean, whose own term is then left out.
    """
    centred, smallest = x, 0.0
    if not about_zero:
        first = mean(x)
        centred = x - first
        # The mean is off by some ulps, and with it each difference.
        centred = centred - mean(centred)
        smallest = jnp.square(2.0**-5 * ULP * first)
    var = mean(centred * centred)
    # What is rounding alone is the variance of a constant.
    shifted = jnp.where(var <= smallest, 0.0, var) + epsilon
    inverse = jnp.where(shifted > 0, lax.rsqrt(jnp.maximum(shifted, 1e-45)), 0.0)
    inverse = jnp.where(shifted > LARGEST, jnp.nan, inverse)
    normal = centred * inverse
    rest = scaled - normal * mean(scaled * normal)
    if not about_zero:
        rest = rest - mean(scaled)
    return inverse * rest, normal
