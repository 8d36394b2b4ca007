"""Claims about saturated and sensitive zones, and about gradients in deep networks."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.sources.compiled import layer_norm, normalize_batch

sigmoid = scipy.special.expit
WIDTH = 64


def slope(x):
    """σ′."""
    return sigmoid(x) * (1 - sigmoid(x))


def mean_slope(mean):
    """E[σ′(x)] for x ~ N(mean, 1), by Gauss–Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    return weights @ slope(mean + points) / weights.sum()


def test_row_14_inputs_of_mean_minus_6_saturate_a_sigmoid(rng):
    within = scipy.stats.norm(-6, 1).cdf([-8, -4])
    assert np.diff(within)[0] == pytest.approx(0.9545, abs=5e-5)
    printed = [0.000335, 0.002473, 0.017986]
    np.testing.assert_allclose(sigmoid(np.array([-8, -6, -4])), printed, atol=5e-7)
    assert slope(-6) == pytest.approx(0.002467, abs=5e-7)
    assert mean_slope(-6) == pytest.approx(0.0040, abs=5e-5)
    assert mean_slope(0) == pytest.approx(0.2066, abs=5e-5)
    assert mean_slope(0) / mean_slope(-6) == pytest.approx(52, abs=0.5)
    x = np.float32(rng.normal(-6, 1, (20_000, 1)))
    normalized = np.asarray(normalize_batch(x))
    assert slope(normalized).mean() == pytest.approx(0.2066, abs=1e-3)


def test_row_28_near_the_ends_a_sigmoids_gradient_vanishes_and_never_explodes():
    """The source says "explode or vanish", but σ′ ≤ ¼, so that products only shrink."""
    x = np.linspace(-40, 40, 8001)
    assert slope(x).max() == slope(0) == 0.25
    ends = slope(x[abs(x) > 10])
    assert ends.max() < 5e-5
    assert np.prod(np.full(8, slope(0))) < 2e-5  # eight layers, where most sensitive


def gradients(rng, layers, activation, derivative, size, *, skip):
    """Returns the norm of a random network's ∂(output)/∂(input), a product of Jacobians."""
    h, product = rng.normal(size=WIDTH), np.eye(WIDTH)
    for _ in range(layers):
        weights = size / np.sqrt(WIDTH) * rng.normal(size=(WIDTH, WIDTH))
        z = weights @ h
        jacobian = derivative(z)[:, None] * weights + skip * np.eye(WIDTH)
        h, product = activation(z) + skip * h, jacobian @ product
    return np.linalg.norm(product) / np.sqrt(WIDTH)


def test_row_23_gradients_vanish_through_sigmoids_and_not_through_relu_or_skips(rng):
    """For random networks of 20 layers; a study covers trained ones."""

    def relu(z):
        return np.maximum(z, 0)

    vanished = gradients(rng, 20, sigmoid, slope, 1.0, skip=False)
    by_relu = gradients(rng, 20, relu, lambda z: 1.0 * (z > 0), np.sqrt(2), skip=False)
    by_skips = gradients(rng, 20, sigmoid, slope, 1.0, skip=True)
    assert vanished < 1e-12
    assert 0.05 < by_relu < 20
    assert 0.5 < by_skips < 20


def test_row_32_products_grow_or_shrink_and_a_norm_pulls_them_back(rng):
    """Each layer multiplies by √width × the weights' standard deviation.

    The source says that the products grow.
    """
    for deviation, factor in ((1.0, 8.0), (0.01, 0.08)):
        x = pulled = np.float32(rng.normal(size=(1, WIDTH)))
        first = np.linalg.norm(x)
        for layer in range(1, 11):
            weights = np.float32(rng.normal(0, deviation, (WIDTH, WIDTH)))
            x, pulled = x @ weights, layer_norm(pulled @ weights, epsilon=1e-12)
            assert np.linalg.norm(x) == pytest.approx(first * factor**layer, rel=0.6)
            assert np.linalg.norm(pulled) == pytest.approx(8, rel=1e-4)


def test_rows_2_35_and_56_standardised_inputs_are_those_of_the_first_layer_only(rng):
    """The inputs of all layers are standardised only if each layer is normalised."""
    x = np.float32(rng.normal(3, 5, (512, WIDTH)))
    plain = normalized = np.asarray(normalize_batch(x))
    drifts = []
    for _ in range(3):
        weights = np.float32(rng.normal(0, 3, (WIDTH, WIDTH)))
        plain, z = np.maximum(plain @ weights, 0), np.maximum(normalized, 0) @ weights
        normalized = np.asarray(normalize_batch(z))
        drifts.append(plain.std())
        np.testing.assert_allclose(normalized.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(normalized.std(0), 1, rtol=1e-3)
    assert 10 < drifts[0] < drifts[1] / 10 < drifts[2] / 100
