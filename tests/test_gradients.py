"""Derivatives of every norm: against the paper's equations and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.cases import cases


@pytest.mark.parametrize("case", cases(["float32", "float64"]), ids=str)
def test_equal_the_oracle(case):
    with jax.enable_x64(case.dtype == "float64"):
        x, scale, bias, g = case.arrays()

        @jax.jit
        def gradients(x, scale, bias, g):
            return jax.vjp(case.apply, x, scale, bias)[1](g)

        expected = case.expected()
        tolerance = 1e-11 if case.dtype == "float64" else 1e-5
        for got, want in zip(gradients(x, scale, bias, g), expected[1:], strict=True):
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", cases(["float64"]), ids=str)
def test_equal_finite_differences(case):
    with jax.enable_x64(True):
        x, scale, bias, _ = case.arrays()
        check_grads(jax.jit(case.apply), (x, scale, bias), order=1, modes=("fwd", "rev"))


@pytest.mark.parametrize("case", cases(["float32"], ["mask", "float"]), ids=str)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_has_weight_zero_reaches_no_gradient(case, poison):
    x, scale, bias, g = case.arrays()
    used = np.broadcast_to(np.asarray(case.weights()) > 0, x.shape)
    g = jnp.where(used, g, 0)  # a loss over the valid places

    @jax.jit
    def gradients(x):
        return jax.vjp(case.apply, x, scale, bias)[1](g)

    clean = gradients(x)
    for got, want in zip(gradients(jnp.where(used, x, poison)), clean, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", cases(["float32"], ["none"]), ids=str)
def test_nothing_weighted_gives_finite_gradients(case):
    x, scale, bias, g = case.arrays()
    nothing = jnp.zeros((1,) * x.ndim, bool)
    _, vjp = jax.vjp(lambda *a: case.apply(*a, weights=nothing), x * jnp.nan, scale, bias)
    dx, dscale, _ = vjp(g)
    np.testing.assert_array_equal(dx, jnp.zeros_like(x))
    np.testing.assert_array_equal(dscale, jnp.zeros_like(scale))
