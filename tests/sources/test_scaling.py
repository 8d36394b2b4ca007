"""Claims about scaling inputs before they reach a network."""

import jax
import numpy as np
import pytest

from jaxnorm import mean_normalize, min_max, standardize, summarize


@pytest.fixture
def cars(rng):
    """Age in years and distance in kilometres, like the cars in the source."""
    return np.float32(rng.uniform([0, 0], [30, 300_000], (64, 2)))


def scaled(scale, x):
    return np.asarray(jax.jit(lambda x: scale(x, summarize(x)))(x))


def test_row_27_zero_one_standardisation_and_min_max(cars):
    """The source's "0–1" is mean 0 and variance 1; min–max lies between 0 and 1."""
    y = scaled(standardize, cars)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-5)
    assert (y.min(0) < 0).all()
    assert (y.max(0) > 1).all()
    y = scaled(min_max, cars)
    np.testing.assert_array_equal(y.min(0), [0, 0])
    np.testing.assert_array_equal(y.max(0), [1, 1])


def test_row_44_by_the_mean_and_the_range_is_not_from_0_to_1(cars):
    """The source says "to 0..1", but its formula gives mean 0 and so both signs."""
    y = scaled(mean_normalize, cars)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.max(0) - y.min(0), 1, rtol=1e-6)
    assert (y.min(0) < -0.4).all()
    assert (y.max(0) < 0.6).all()
    # It lies between 0 and 1 once its minimum is subtracted.
    np.testing.assert_allclose(y - y.min(0), scaled(min_max, cars), atol=1e-6)


def test_row_45_by_the_deviation_is_of_mean_0_and_variance_1_but_not_normal(cars):
    """The source says "standard normal", but uniform ages stay uniform, of kurtosis 1.8."""
    y = scaled(standardize, cars)
    z = (cars - cars.mean(0, np.float64)) / cars.std(0, dtype=np.float64)
    np.testing.assert_allclose(y, z, atol=1e-5)
    assert (abs((y**4).mean(0) - 1.8) < 0.3).all()  # 3 for a normal distribution
