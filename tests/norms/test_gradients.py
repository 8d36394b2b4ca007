"""Derivatives of every norm, compared with the paper's equations and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxnorm import measure
from tests.support.cases import cases, rows


@pytest.mark.parametrize(
    "case",
    rows(
        cases(["float32", "float64"]),
        cases(["float32"], few=True),
    ),
    ids=str,
)
def test_equal_the_oracle(case):
    with jax.enable_x64(case.dtype == "float64"):
        x, scale, bias, g = case.arrays()

        @jax.jit
        def gradients(x, scale, bias, g):
            return jax.vjp(case.apply, x, scale, bias)[1](g)

        _, *expected, largest = case.expected()
        tolerance = 1e-11 if case.dtype == "float64" else 2e-6
        sizes = (max(1, largest), *(max(5, np.abs(each).max()) for each in expected[1:]))
        for got, want, size in zip(
            gradients(x, scale, bias, g), expected, sizes, strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * size)


EXACT = [
    case
    for case in cases(["float64"], ["none", "float"], in_turn=True)
    if case.norm.exact_derivative
]


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT, ids=str)
def test_equal_finite_differences(case):
    with jax.enable_x64(True):
        x, scale, bias, _ = case.arrays()
        check_grads(jax.jit(case.apply), (x, scale, bias), order=2, modes=("fwd", "rev"))


PARAMETERS = [
    pytest.param(case, name, id=f"{case}-{name}")
    for case in EXACT
    if case.weighting == "float"
    for name in case.norm.parameters
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "name"), PARAMETERS)
def test_those_of_other_parameters_equal_finite_differences(case, name):
    """For one value, and for one of each feature."""
    with jax.enable_x64(True):
        x, scale, bias, _ = case.arrays()
        value = jnp.asarray(case.norm.parameters[name])
        each = value * jnp.linspace(0.5, 1.5, bias.size).reshape(bias.shape)

        def norm(x, parameter):
            return case.apply(x, scale, bias, **{name: parameter})

        for parameter in (value, each):
            if parameter.ndim and case.layout.conditional:
                continue
            check_grads(jax.jit(norm), (x, parameter), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize(
    "axes",
    [(0, 2), *(pytest.param(each, marks=pytest.mark.slow) for each in (0, (0, 1, 2)))],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.slow
def test_those_of_moments_equal_finite_differences(rng, axes, weighted):
    """Including the count, and with respect to the weights."""
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(1, 2, (5, 3, 4)))
        weights = jnp.asarray(rng.uniform(0.5, 2, (5, 1, 4))) if weighted else None
        arguments = (x, weights) if weighted else (x,)
        moments = jax.jit(lambda x, weights=None: measure(x, axes, weights))
        check_grads(moments, arguments, order=2, modes=("fwd", "rev"))


def test_what_has_no_weight_has_no_derivative_by_its_weight(rng):
    x = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32).at[1].set(jnp.nan)
    weights = jnp.asarray([[1.0], [0.0], [2.0], [0.5]])
    gradient = jax.grad(lambda w: sum(jnp.sum(each) for each in measure(x, 0, w)))(weights)
    assert jnp.isfinite(gradient).all()
    assert gradient[1] == 0


@pytest.mark.parametrize(
    "case",
    rows(
        cases(["float32"], ["mask", "float"]),
        cases(["float32"], ["mask", "float"], few=True),
    ),
    ids=str,
)
def test_what_has_weight_zero_reaches_no_gradient(case):
    x, scale, bias, g = case.arrays()
    used = np.broadcast_to(np.asarray(case.weights()) > 0, x.shape)
    g = jnp.where(used, g, 0)  # a loss over the elements with weight

    @jax.jit
    def gradients(x):
        return jax.vjp(case.apply, x, scale, bias)[1](g)

    clean = gradients(x)
    for poison in (jnp.nan, jnp.inf):
        for got, want in zip(gradients(jnp.where(used, x, poison)), clean, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "case",
    rows(
        cases(["float32"], ["none"], few=True),
        [
            case
            for case in cases(["float32"], ["none"], few=True)
            if case.norm.name in ("batch_norm-train", "layer_norm")
        ],
    ),
    ids=str,
)
def test_nothing_weighted_gives_finite_gradients(case):
    x, scale, bias, g = case.arrays()
    nothing = jnp.zeros((1,) * x.ndim, bool)
    _, vjp = jax.vjp(lambda *a: case.apply(*a, weights=nothing), x * jnp.nan, scale, bias)
    dx, dscale, _ = vjp(g)
    np.testing.assert_array_equal(dx, jnp.zeros_like(x))
    np.testing.assert_array_equal(dscale, jnp.zeros_like(scale))
