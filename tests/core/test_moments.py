"""Moments against the oracle, and the laws of their monoid."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnorm import Moments, measure, merge, pool
from jaxnorm._core import moments
from tests.support import oracle

SAMPLES = 5
values = st.floats(-1e3, 1e3, width=32)
samples = hnp.arrays(np.float32, (SAMPLES, 2), elements=values)
weights = hnp.arrays(np.float32, (SAMPLES, 1), elements=st.sampled_from([0, 0.25, 1, 3]))

# Each is jitted once, because hypothesis draws hundreds of arrays of one shape.
measured = jax.jit(functools.partial(measure, reduction_axes=0))
merged = jax.jit(merge)


def assert_same(one: Moments, other: Moments) -> None:
    """Asserts equality up to rounding, which for a variance is (|μ|·eps)² + σ²·eps."""
    count, mean, var = (np.asarray(each, np.float64) for each in other)
    np.testing.assert_allclose(one.count, count, rtol=1e-6)
    size = np.abs(mean) + np.sqrt(var)
    assert (np.abs(one.mean - mean) <= 2e-6 * size).all()
    assert (np.abs(one.var - var) <= 4e-6 * var + (1e-5 * size) ** 2).all()


@given(samples, weights)
def test_measure_equals_the_oracle(x, w):
    expected = oracle.moments(x, (0,), w)
    assert_same(measured(x, weights=w), Moments(*(each[0] for each in expected)))


@given(samples, weights, samples, weights)
def test_merge_measures_the_samples_of_both(x, v, y, w):
    both = measured(np.concatenate([x, y]), weights=np.concatenate([v, w]))
    assert_same(merged(measured(x, weights=v), measured(y, weights=w)), both)


@given(samples, weights, samples, weights, samples, weights)
def test_merge_is_associative(x, u, y, v, z, w):
    a, b, c = measured(x, weights=u), measured(y, weights=v), measured(z, weights=w)
    assert_same(merged(merged(a, b), c), merged(a, merged(b, c)))
    assert_same(merged(a, b, c), merged(a, merged(b, c)))


@given(samples, weights, samples, weights)
def test_merge_is_commutative(x, v, y, w):
    a, b = measured(x, weights=v), measured(y, weights=w)
    assert_same(merged(a, b), merged(b, a))


@given(samples, weights)
def test_empty_moments_change_nothing(x, w):
    a, empty = measured(x, weights=w), Moments.empty((2,))
    assert_same(merged(a, empty), a)
    assert_same(merged(empty, a), a)
    chex.assert_trees_all_equal(merged(empty, empty), empty)


@given(samples, weights)
def test_what_has_weight_zero_is_not_seen(x, w):
    poisoned = np.where(w > 0, x, np.float32(np.nan))
    chex.assert_trees_all_equal(measured(poisoned, weights=w), measured(x, weights=w))


@given(samples, hnp.arrays(np.int32, (SAMPLES, 1), elements=st.integers(0, 3)))
def test_a_weight_is_a_repetition(x, repetitions):
    repeated = np.repeat(x, repetitions[:, 0], axis=0)
    expected = oracle.moments(repeated, (0,)) if len(repeated) else 3 * [np.zeros((1, 2))]
    got = measured(x, weights=repetitions.astype(np.float32))
    assert_same(got, Moments(*(each[0] for each in expected)))


def test_no_weight_gives_empty_moments():
    x = jnp.full((4, 3), jnp.nan)
    chex.assert_trees_all_equal(measure(x, 0, jnp.zeros((4, 1), bool)), Moments.empty((3,)))


def test_large_means_do_not_cancel(rng):
    """E[x²] − μ² would give a variance of 0 or noise here."""
    x = (1e6 + rng.normal(size=(4096, 1))).astype(np.float32)
    _, mean, var = oracle.moments(x, (0,))
    moments = measure(x, 0)
    np.testing.assert_allclose(moments.mean, mean[0], rtol=1e-6)
    np.testing.assert_allclose(moments.var, var[0], rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_statistics_are_at_least_float32(dtype):
    x = jnp.full((300, 2), 100, dtype)  # the sum neither overflows nor stalls
    moments = measure(x, 0)
    chex.assert_type(moments, jnp.float32)
    np.testing.assert_array_equal(moments.mean, np.full(2, 100))
    np.testing.assert_array_equal(moments.count, np.full(2, 300))


@pytest.mark.parametrize("constant", [0.1, 7.7, 100.3, 1000.3, 1e6 + 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_has_itself_as_mean_and_no_variance(constant, weighted):
    """Σx/n alone is off by an ulp, and normalising it would give ±1 as ε → 0."""
    for n in (2, 3, 7, 8, 59, 100, 120, 1000):
        x = np.full((n, 1), constant, np.float32)
        w = np.where(np.arange(n) % 3, 0.7, 1.1).astype(np.float32)[:, None]
        _, mean, var = measured(x, weights=w if weighted else None)
        assert (mean[0], var[0]) == (x[0, 0], 0)


def test_merge_begins_with_nothing_and_refuses_other_shapes(rng):
    moments = measure(rng.normal(size=(4, 3)).astype(np.float32), 0)
    assert_same(merge(Moments.empty(), moments), moments)
    assert_same(merge(Moments.empty(dtype=jnp.bfloat16), moments), moments)
    with pytest.raises(ValueError, match=r"\[\(3,\), \(2,\)\]; they must be of the same"):
        merge(moments, Moments.empty((2,)))


def test_the_mean_of_a_merge_is_corrected():
    """Seven shares of 1/7 do not add up to 1 in float32."""
    parts = [Moments(jnp.ones(1), jnp.full(1, 1e6 + 0.3), jnp.zeros(1))] * 7
    assert merge(*parts).mean[0] == parts[0].mean[0]
    assert merge(*parts).var[0] == 0


def test_weights_that_differ_by_feature_give_counts_that_do(rng):
    x = rng.normal(size=(6, 3)).astype(np.float32)
    w = rng.uniform(size=(6, 3)) < 0.6
    expected = Moments(*(each[0] for each in oracle.moments(x, (0,), w)))
    assert len(set(expected.count)) > 1
    assert_same(measured(x, weights=w), expected)


def test_pool_merges_channels_into_groups(rng):
    x = rng.normal(size=(2, 7, 4)).astype(np.float32)
    channels = measure(x, reduction_axes=1)
    groups = pool(Moments(*(each.reshape(2, 2, 2) for each in channels)), axes=-1)
    direct = measure(x.reshape(2, 7, 2, 2), reduction_axes=(1, 3))
    assert_same(groups, direct)


def test_merge_of_nothing_says_what_to_do():
    with pytest.raises(ValueError, match=r"Moments\.empty\(\)"):
        merge()


def test_merge_does_not_overflow_where_the_result_does_not():
    big = Moments(jnp.full(1, 4.0), jnp.full(1, 3e38), jnp.zeros(1))
    assert float(merge(big, big).mean[0]) == pytest.approx(3e38)


@pytest.mark.parametrize("weighted", [False, True])
def test_there_may_be_more_samples_than_an_integer_of_32_bits_counts(weighted):
    x = jax.ShapeDtypeStruct((2**31, 2), jnp.bfloat16)
    weights = jax.ShapeDtypeStruct((1, 2), jnp.float32) if weighted else None
    moments = jax.eval_shape(lambda x, w: measure(x, 0, w), x, weights)
    assert moments.mean.shape == (2,)


def test_batches_of_the_largest_means_merge_to_one_between_them():
    """The distance between the means overflows, but their mean does not."""
    many, one = (
        Moments(*(jnp.float32(each) for each in (count, mean, 0)))
        for count, mean in ((3, 3e38), (1, -3e38))
    )
    found = moments.merge_into(many, one)
    np.testing.assert_allclose(found.mean, merge(many, one).mean, rtol=1e-6)
    assert found.var == merge(many, one).var == jnp.inf


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_merge_into_many_is_a_merge(count, rng):
    """Also if either side has no samples."""
    parts = [
        Moments(jnp.float32(n), *map(jnp.float32, rng.normal(5, 1, 2) ** 2))
        for n in (count, 2)
    ]
    parts[0] = jax.tree.map(lambda each: each * np.float32(count > 0), parts[0])
    for one, other in (parts, parts[::-1]):
        chex.assert_trees_all_close(
            moments.merge_into(one, other), merge(one, other), rtol=1e-6
        )
