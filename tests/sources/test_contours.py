"""Claims about the shape of a loss, and the speed of gradient descent."""

import jax
import numpy as np
import pytest

from jaxnorm import standardize, summarize
from tests.sources.compiled import normalize_batch


def hessian(inputs):
    """The Hessian of L(w) = ½(xw + b − ŷ)², averaged over samples; same for any w, b, ŷ."""
    design = np.column_stack([np.float64(inputs), np.ones(len(inputs))])
    return design.T @ design / len(inputs)


def steps(inputs, tolerance=1e-3):
    """Steps of steepest descent at the largest safe rate, from 1 away in each weight."""
    curvature = np.linalg.eigvalsh(hessian(inputs))
    slowest = 1 - curvature.min() / curvature.max()
    return 1 if slowest < tolerance else np.log(tolerance) / np.log(slowest)


def whitened(x):
    """Whitens x with the inverse root of its covariance; no formula in the source does."""
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    return (x - x.mean(0)) @ (vectors / np.sqrt(values)) @ vectors.T


def test_row_1_standardised_data_is_not_white_and_converges_faster(rng):
    """The source calls standardising whitening, but the correlation remains."""
    cause = rng.normal(size=512)
    both = [10 * cause + rng.normal(50, 5, 512), cause + rng.normal(3, 0.5, 512)]
    x = np.float32(np.column_stack(both))
    standard, white = np.asarray(normalize_batch(x), np.float64), whitened(x)
    correlation = np.corrcoef(x.T)[0, 1]
    assert correlation > 0.7
    expected = [[1, correlation], [correlation, 1]]
    np.testing.assert_allclose(np.cov(standard.T, ddof=0), expected, rtol=1e-4)
    np.testing.assert_allclose(np.cov(white.T, ddof=0), np.eye(2), atol=1e-4)
    assert steps(x) > 100 * steps(standard) > 100 * steps(white)


def test_row_6_standardised_inputs_make_round_contours_and_a_faster_optimum(rng):
    x = np.float32(rng.normal(6, 1, (256, 1)))
    y = normalize_batch(x)
    assert np.linalg.cond(hessian(x)) > 1000
    assert np.linalg.cond(hessian(y)) == pytest.approx(1, abs=1e-4)
    assert steps(y) == 1
    assert steps(x) > 1000


def test_row_46_a_large_range_outweighs_a_small_one_and_explodes(rng):
    """The features are the age in years and the distance in kilometres of rented cars."""
    cars = np.float32(rng.uniform([0, 0], [30, 300_000], (64, 2)))
    scaled = jax.jit(lambda x: standardize(x, summarize(x)))(cars)
    price = 60 - cars[:, 0] - cars[:, 1] / 10_000  # both matter equally

    def gradient(inputs, weights):
        return inputs.T @ (inputs @ weights - price + price.mean()) / len(inputs)

    age, distance = abs(gradient(cars, np.zeros(2)))
    assert distance > 5000 * age
    age, distance = abs(gradient(np.asarray(scaled), np.zeros(2)))
    assert distance == pytest.approx(age, rel=0.5)
    # At a rate that suits the age, the other weight explodes unless inputs are scaled.
    for inputs, explodes in ((cars, True), (np.asarray(scaled), False)):
        weights, rate = np.zeros(2), 1 / np.var(inputs[:, 0])
        for _ in range(10):
            weights = weights - rate * gradient(np.float64(inputs), weights)
        assert (abs(weights).max() > 1e6) == explodes
    assert np.linalg.cond(hessian(cars)) > 1e8
    assert np.linalg.cond(hessian(scaled)) < 2
