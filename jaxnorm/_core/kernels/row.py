"""The derivative of one row, shared by both kernels."""

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
    """Returns dx, and x̂ for the gradient of the scale.

    With s = γ·g and r = (σ² + ε)^−½,  dx = r·(s − mean(s) − x̂·mean(s·x̂)).

    Args:
      x: rows in float32.
      scaled: s, in float32.
      mean: returns the mean of each row, in a shape that broadcasts against the rows.
      epsilon: ε.
      about_zero: whether to use 0 in place of the mean, and to omit its term.
    """
    centred, smallest = x, 0.0
    if not about_zero:
        first = mean(x)
        centred = x - first
        # The mean is off by a few ulps, and so is each difference.
        centred = centred - mean(centred)
        smallest = jnp.square(2.0**-5 * ULP * first)
    var = mean(centred * centred)
    # A variance that may be due to rounding alone counts as 0, as for a constant.
    shifted = jnp.where(var <= smallest, 0.0, var) + epsilon
    inverse = jnp.where(shifted > 0, lax.rsqrt(jnp.maximum(shifted, 1e-45)), 0.0)
    inverse = jnp.where(shifted > LARGEST, jnp.nan, inverse)
    normal = centred * inverse
    rest = scaled - normal * mean(scaled * normal)
    if not about_zero:
        rest = rest - mean(scaled)
    return inverse * rest, normal
