import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnorm import Moments, Statistics, ema


def batch(mean, var=1.0, count=4.0, dtype=jnp.float32):
    return Moments(*(jnp.full(2, each, dtype) for each in (count, mean, var)))


def test_starts_at_mean_0_and_variance_1():
    chex.assert_trees_all_equal(ema(0.9).init((3,)), Statistics(jnp.zeros(3), jnp.ones(3)))


@given(st.floats(0, 1), st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=4))
def test_is_the_weighted_sum_of_its_past(decay, means):
    estimator = ema(decay)
    state = estimator.init((2,))
    expected = 0.0
    for mean in means:
        state = estimator.update(state, batch(mean))
        expected = decay * expected + (1 - decay) * mean
    np.testing.assert_allclose(estimator.read(state).mean, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [-0.01, 1.01, float("nan"), 99])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay={decay}.*\[0, 1\].*torch"):
        ema(decay)


def test_a_decay_of_1_freezes_and_of_0_forgets():
    state = ema(0.5).init((2,))
    chex.assert_trees_all_equal(ema(1).update(state, batch(3.0)), state)
    chex.assert_trees_all_equal(
        ema(0).update(state, batch(3.0, 2.0)),
        Statistics(jnp.full(2, 3.0), jnp.full(2, 2.0)),
    )


def test_a_count_of_0_changes_nothing():
    state = Statistics(jnp.full(2, 5.0), jnp.full(2, 7.0))
    chex.assert_trees_all_equal(ema(0.9).update(state, Moments.empty((2,))), state)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_state_keeps_its_dtype_so_that_it_can_be_carried(dtype):
    with jax.enable_x64(True):
        state = ema(0.9).init((2,), dtype)
        updated = ema(0.9).update(state, batch(1.0, dtype=jnp.float64))
        chex.assert_trees_all_equal_shapes_and_dtypes(updated, state)


def test_reads_as_the_population():
    read = ema(0.9).read(Statistics(jnp.zeros(2), jnp.ones(2)))
    assert jnp.isinf(read.count).all()
