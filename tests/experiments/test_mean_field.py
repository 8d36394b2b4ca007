"""The theory of the explosion, and the verdicts at their thresholds."""

import math

import jax
import numpy as np
import pytest

from experiments.studies import mean_field
from experiments.studies.mean_field import explosion


@pytest.mark.parametrize("batch", [4, 8, 64, 1000])
def test_rate_without_activation_is_that_of_the_paper(batch):
    expected = (batch - 2) / (batch - 3)
    np.testing.assert_allclose(explosion.rate(explosion.linear_kernel, batch), expected)


def test_rate_with_relu_tends_to_that_of_the_paper():
    limit = math.pi / (math.pi - 1)
    np.testing.assert_allclose(
        explosion.rate(explosion.relu_kernel, 10**7), limit, rtol=1e-6
    )


@pytest.mark.parametrize("c", [-0.5, -1 / 63, 0.0, 0.7])
def test_kernel_of_relu_is_the_moment_it_stands_for(rng, c):
    u, v = rng.normal(size=(2, 2_000_000))
    v = c * u + math.sqrt(1 - c * c) * v
    value, slope = explosion.relu_kernel(c)
    sampled = 2 * np.mean(np.maximum(u, 0) * np.maximum(v, 0))
    np.testing.assert_allclose(value, sampled, atol=5e-3)
    ahead, behind = (explosion.relu_kernel(c + h)[0] for h in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-6)


def test_gradients_of_one_linear_layer_are_those_of_its_formula():
    key = jax.random.key(0)
    found = explosion.squared_gradients(
        key, depth=1, width=6, batch=5, activation=explosion.linear, normalized=False
    )
    _, of_inputs, of_direction = jax.random.split(key, 3)
    x, direction = (
        np.asarray(jax.random.normal(k, (5, 6))) for k in (of_inputs, of_direction)
    )
    np.testing.assert_allclose(found, [np.sum((x.T @ direction) ** 2)], rtol=1e-5)


def history(relu=None, linear=None, plain=80.0, norm=70.0):
    """Five seeds, given the growth per layer and the accuracy in % at the best rate."""
    rates = {"relu": relu, "linear": linear}
    layers = np.arange(explosion.DEPTH)
    found = {}
    for network, kernel in explosion.KERNELS.items():
        batch = mean_field.CLAIMED[network]
        factor = rates[network] or explosion.rate(kernel, batch)
        name = explosion.network_name(network, batch, explosion.DEPTH)
        found[name] = {"gradients": np.tile(factor ** -layers.astype(float), (5, 1))}
    for arm, value in (("plain", plain), ("batch_norm", norm)):
        for rate in mean_field.RATES:
            best = value if rate == mean_field.RATES[2] else np.nan
            name = mean_field.trial_name(arm, rate)
            found[name] = {"accuracy": np.full((5, 1), best / 100)}
    return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "PASS PASS PASS"),
        ({"relu": 1.4931 * 1.029}, "PASS PASS PASS"),
        ({"relu": 1.4931 * 1.031}, "FAIL PASS PASS"),
        ({"linear": 1.2 * 0.969}, "PASS FAIL PASS"),
        ({"linear": 1.2 * 0.971}, "PASS PASS PASS"),
        ({"relu": 1.0, "linear": 1.0}, "FAIL FAIL PASS"),
        ({"norm": 80.1}, "PASS PASS FAIL"),
        ({"plain": np.nan}, "PASS PASS FAIL"),
        ({"norm": np.nan}, "PASS PASS PASS"),
    ],
)
def test_verdicts_at_their_thresholds(given, words):
    found = mean_field.verdicts(history(**given))
    assert [each.word for each in found] == words.split()
