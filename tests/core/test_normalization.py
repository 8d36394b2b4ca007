"""Errors of `normalize` for operands that no norm passes to it."""

import jax.numpy as jnp
import pytest

from jaxnorm import Moments, normalize

X, GOOD = jnp.ones((4, 3)), jnp.ones(3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("moments", "error", "message"),
    [
        ((GOOD, GOOD, GOOD), TypeError, "moments is a tuple, but Moments"),
        (Moments(GOOD, jnp.ones(4), GOOD), ValueError, "over the same axes"),
        (Moments(jnp.ones(()), GOOD, GOOD), ValueError, "over the same axes"),
        (Moments(GOOD, GOOD, jnp.ones(1)), ValueError, "over the same axes"),
    ],
)
def test_moments_that_do_not_fit_are_refused_with_the_mend(moments, error, message):
    with pytest.raises(error, match=message):
        normalize(X, moments, reduction_axes=0, feature_axes=-1, epsilon=1e-5)
