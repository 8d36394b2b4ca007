"""What is specific to batch norm: its statistics and its laws."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnorm import Statistics, batch_norm, ema
from tests.support import oracle

SHAPE = (6, 3)
batches = hnp.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32))
doubles = hnp.arrays(np.float64, SHAPE, elements=st.floats(-100, 100))
START = ema(0.9).init((3,))
X = jnp.ones(SHAPE)

train = jax.jit(functools.partial(batch_norm, train=True, estimator=ema(0.9)))
evaluate = jax.jit(functools.partial(batch_norm, train=False, estimator=ema(0.9)))
# Jitted separately, so that the standard deviation is the same: one without epsilon.
standardize = jax.jit(functools.partial(batch_norm, train=True, update=False, epsilon=0.0))


@given(batches)
def test_the_same_inputs_give_bitwise_the_same_outputs(x):
    before = x.copy()
    first, again = (train(x, START) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    np.testing.assert_array_equal(x, before)
    chex.assert_trees_all_equal(START, ema(0.9).init((3,)))


def test_has_no_effects_under_any_flag():
    x = jnp.ones(SHAPE)
    for mode in (True, False):
        function = functools.partial(batch_norm, train=mode, estimator=ema(0.9))
        jaxpr = jax.make_jaxpr(function)(x, START)
        assert not jaxpr.effects


@given(doubles, st.permutations(range(SHAPE[0])))
def test_permuting_the_batch_permutes_the_output(x, order):
    with jax.enable_x64(True):
        y, statistics = train(x, START)
        permuted, same = train(x[order], START)
        np.testing.assert_allclose(permuted, y[np.array(order)], atol=1e-9)
        chex.assert_trees_all_close(statistics, same, rtol=1e-6)  # kept in float32


@given(doubles, st.floats(0.01, 100), st.floats(-100, 100))
def test_is_invariant_to_an_increasing_affine_map(x, a, b):
    """For ε → 0, whatever a > 0 and b."""
    x = x + np.arange(SHAPE[0])[:, None] ** 2  # no feature is nearly constant
    assume((x.std(0) > 1e-3).all())
    with jax.enable_x64(True):
        y, _ = standardize(x, START)
        mapped, _ = standardize(a * x + b, START)
        np.testing.assert_allclose(mapped, y, atol=1e-7)


@given(doubles)
def test_jit_equals_eager_to_rounding(x):
    with jax.enable_x64(True):
        eager = batch_norm(x, START, train=True, estimator=ema(0.9))
        chex.assert_trees_all_close(train(x, START), eager, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_training_updates_and_evaluation_reads(rng, weighted):
    x = rng.normal(2, 3, (4, 5, 3)).astype(np.float32)
    weights = (rng.uniform(size=(4, 5, 1)) < 0.6) if weighted else None
    _, mean, var = oracle.moments(x, (0, 1), weights)
    y, statistics = train(x, START, weights=weights)
    chex.assert_trees_all_close(
        statistics,
        Statistics(0.1 * mean[0, 0], 0.9 + 0.1 * var[0, 0]),
        rtol=1e-5,
    )
    y, unchanged = evaluate(x, statistics)
    chex.assert_trees_all_equal(unchanged, statistics)
    expected = oracle.normalize(
        x, *map(np.asarray, statistics), np.ones(3), np.zeros(3), (2,), 1e-5
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_the_statistics_of_a_batch_without_weight_stay(rng):
    statistics = Statistics(jnp.full(3, 5.0), jnp.full(3, 7.0))
    nothing = jnp.zeros((6, 1), bool)
    _, after = train(np.full(SHAPE, np.nan, np.float32), statistics, weights=nothing)
    chex.assert_trees_all_equal(after, statistics)


def test_a_scan_over_steps_carries_the_statistics(rng):
    xs = rng.normal(2, 3, (4, *SHAPE)).astype(np.float32)
    scanned, ys = jax.lax.scan(
        lambda s, x: batch_norm(x, s, train=True, estimator=ema(0.99))[::-1], START, xs
    )
    looped = START
    for x, y in zip(xs, ys, strict=True):
        expected, looped = batch_norm(x, looped, train=True, estimator=ema(0.99))
        np.testing.assert_allclose(y, expected, atol=1e-5)
    chex.assert_trees_all_close(scanned, looped, rtol=1e-5)


def test_a_step_is_traced_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(x, statistics):
        return batch_norm(x, statistics, train=True, estimator=ema(0.99))[1]

    statistics = START
    for _ in range(3):
        statistics = step(jnp.ones(SHAPE), statistics)


def test_a_16_bit_input_may_be_given_a_wider_output(rng):
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.bfloat16)
    wide, _ = batch_norm(x, START, train=True, estimator=ema(0.99), dtype=jnp.float32)
    narrow, _ = batch_norm(x, START, train=True, estimator=ema(0.99))
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide.astype(jnp.bfloat16), narrow)
    assert (wide != narrow.astype(jnp.float32)).any()  # not rounded in between


def test_an_empty_batch_can_be_evaluated():
    y, _ = batch_norm(X[:0], START, train=False)
    assert y.shape == (0, 3)


def test_has_the_signature_of_the_contract():
    parameters = inspect.signature(batch_norm).parameters
    defaults = {name: each.default for name, each in parameters.items()}
    assert defaults.pop("estimator") is None
    _, usual = batch_norm(X, START, train=True, estimator=ema(0.99))
    _, expected = batch_norm(X, START, train=True, estimator=ema(0.99))
    chex.assert_trees_all_equal(usual, expected)
    required = inspect.Parameter.empty
    assert defaults == {
        "x": required,
        "statistics": required,
        "scale": None,
        "bias": None,
        "train": required,
        "feature_axes": -1,
        "epsilon": 1e-5,
        "weights": None,
        "axis_name": None,
        "axis_index_groups": None,
        "dtype": None,
        "rounding": "once",
        "update": None,
        "ghost_size": None,
    }


@pytest.mark.parametrize("var", [np.nan, -1.0])
def test_spoilt_statistics_are_seen_in_the_output(var):
    y, _ = batch_norm(X, Statistics(jnp.zeros(3), jnp.full(3, var)), train=False)
    assert jnp.isnan(y).all()


def test_a_float64_output_is_as_fine_as_it_says(rng):
    x = rng.normal(1000, 1, (64, 3)).astype(np.float32)
    _, mean, var = oracle.moments(x, (0,))
    expected = oracle.normalize(x, mean, var, np.ones(3), np.zeros(3), (1,), 1e-5)
    with jax.enable_x64(True):
        y, _ = batch_norm(x, START, train=True, estimator=ema(0.99), dtype=jnp.float64)
        np.testing.assert_allclose(y, expected, atol=1e-9)


def test_takes_the_coarsest_floats():
    y, statistics = batch_norm(
        X.astype(jnp.float8_e4m3fn), START, train=True, estimator=ema(0.99)
    )
    assert y.dtype == jnp.float8_e4m3fn
    chex.assert_type(statistics, jnp.float32)
