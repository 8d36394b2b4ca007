"""Agreement with torch and keras, where they are installed; .ci/run installs them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import batch_norm, ema

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("lenient")]
STEPS, SHAPE, EPSILON = 3, (8, 3, 5), 1e-3  # channels first


@pytest.fixture
def batches(rng):
    return rng.normal(2, 3, (STEPS, *SHAPE)).astype(np.float32)


@pytest.fixture
def ours(batches, rng):
    """Outputs, gradients and statistics after three batches at a decay of 0.9."""
    scale, bias = rng.normal(size=(2, 3)).astype(np.float32)
    statistics = ema(0.9).init((3,))
    for x in batches:

        def run(x, scale, bias, statistics=statistics):
            y, after = batch_norm(
                x,
                statistics,
                scale,
                bias,
                train=True,
                feature_axes=1,
                epsilon=EPSILON,
                estimator=ema(0.9),
            )
            return jnp.sum(jnp.sin(y)), (y, after)

        gradients, (y, statistics) = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(
            x, jnp.asarray(scale), jnp.asarray(bias)
        )
    evaluated, _ = batch_norm(
        batches[0], statistics, scale, bias, train=False, feature_axes=1, epsilon=EPSILON
    )
    return scale, bias, y, gradients, statistics, evaluated


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_torch(batches, ours):
    """The momentum of torch is 1 − decay, and its running variance is m/(m−1)·σ²."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    scale, bias, y, gradients, statistics, _ = ours
    module = torch.nn.BatchNorm1d(3, eps=EPSILON, momentum=0.1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(scale))
        module.bias.copy_(torch.tensor(bias))
    for x in batches:
        module.zero_grad()
        x = torch.tensor(x, requires_grad=True)
        out = module(x)
        out.sin().sum().backward()
    close(y, out.detach())
    for got, want in zip(gradients, (x, module.weight, module.bias), strict=True):
        close(got, want.grad)
    close(statistics.mean, module.running_mean)
    m = SHAPE[0] * SHAPE[2]
    start = 0.9**STEPS
    close((statistics.var - start) * m / (m - 1) + start, module.running_var)


def test_keras(batches, ours, monkeypatch):
    """The momentum of keras is our decay, and its running variance is biased like ours."""
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed")
    scale, bias, y, _, statistics, evaluated = ours
    layer = keras.layers.BatchNormalization(axis=1, momentum=0.9, epsilon=EPSILON)
    layer.build(SHAPE)
    layer.gamma.assign(scale)
    layer.beta.assign(bias)
    for x in batches:
        out = layer(x, training=True)
    close(y, out)
    close(statistics.mean, layer.moving_mean)
    close(statistics.var, layer.moving_variance)
    close(evaluated, layer(batches[0], training=False))
