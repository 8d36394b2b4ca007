"""A scale and bias given in the call are applied after the module's own, in both APIs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules.apis import each_api, most_different_norms, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)
SCALE, BIAS = (
    0.5 + jax.random.uniform(jax.random.key(each), (4, 1, 6)) for each in range(2)
)
WITHOUT = {"use_scale": False, "use_bias": False}


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)


def model_of(api, norm, x=X, **arguments):
    """Makes a module whose own scale and bias differ from 1 and 0."""
    groups = {"num_groups": 3} if norm == "GroupNorm" else {}
    if norm == "RMSNorm":
        arguments.pop("use_bias", None)  # RMSNorm has none
    model = api.model(getattr(api.ours, norm), x, x.shape[-1], **groups, **arguments)
    drawn = jax.tree.map(
        lambda each: each + 0.3 * jnp.cos(jnp.arange(each.size, dtype=each.dtype)),
        model.variables["params"],
    )
    variables = model.variables | {"params": drawn}
    return lambda x, **call: model.apply(variables, x, **training(norm), **call)


@each_api
@most_different_norms
@pytest.mark.parametrize("own", [True, False], ids=["own", "none"])
def test_they_are_applied_to_the_output(api, norm, own):
    model = model_of(api, norm, **({} if own else WITHOUT))
    plain, statistics = model(X)
    both, same = model(X, scale=SCALE, bias=BIAS)
    close(both, SCALE * plain + BIAS)
    jax.tree.map(np.testing.assert_array_equal, same, statistics)
    close(model(X, scale=SCALE)[0], SCALE * plain)
    close(model(X, bias=BIAS[0, 0])[0], plain + BIAS[:1])


@each_api
@most_different_norms
def test_gradients_reach_them(api, norm):
    model = model_of(api, norm)
    weights = jnp.sin(jnp.arange(X.size)).reshape(X.shape)

    def loss(scale, bias):
        return jnp.sum(weights * model(X, scale=scale, bias=bias)[0])

    dscale, dbias = jax.jit(jax.grad(loss, (0, 1)))(SCALE, BIAS)
    np.testing.assert_allclose(
        dscale, jnp.sum(weights * model(X)[0], 1, keepdims=True), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(dbias, weights.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


@each_api
@most_different_norms
def test_16_bit_outputs_are_rounded_once(api, norm):
    x, scale, bias = (each.astype(jnp.bfloat16) for each in (X, SCALE, BIAS))
    y, wide = (
        model_of(api, norm, dtype=dtype, **WITHOUT)(x, scale=scale, bias=bias)[0]
        for dtype in ("bfloat16", "float32")
    )
    assert y.dtype == jnp.bfloat16
    # The two programs may differ in the last float32 bit, so a few roundings differ.
    assert np.mean(np.asarray(y != wide.astype(jnp.bfloat16))) < 0.02


@each_api
@most_different_norms
@pytest.mark.parametrize("name", ["scale", "bias"])
def test_complex_ones_are_refused(api, norm, name):
    with pytest.raises(TypeError, match=f"{name} is complex"):
        model_of(api, norm)(X, **{name: jnp.ones((4, 1, 6), complex)})


@each_api
@most_different_norms
@pytest.mark.parametrize("name", ["scale", "bias"])
def test_other_shapes_are_refused(api, norm, name):
    message = rf"{name} has shape \(4, 6\).* \(6,\).* \(4, 1, 6\) for one {name} per sample"
    with pytest.raises(ValueError, match=message):
        model_of(api, norm)(X, **{name: jnp.ones((4, 6))})


@each_api
@most_different_norms
def test_what_is_finer_than_x_stays_so(api, norm):
    with jax.enable_x64(True):
        scale = 1 + 1e-12 * jnp.cos(jnp.arange(24.0)).reshape(4, 1, 6)
        model = model_of(api, norm, dtype=jnp.float64, param_dtype=jnp.float64, **WITHOUT)
        plain, found = model(X)[0], model(X, scale=scale)[0]
        expected = np.broadcast_to(scale - 1, X.shape)
        np.testing.assert_allclose(found / plain - 1, expected, atol=1e-14)
