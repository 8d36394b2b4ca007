"""Claims about moments and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import CountedStatistics, Moments, Statistics, cumulative, ema, population
from tests.sources.compiled import measure

PRINTED = """
53 9 67 30 69  79 25 7 80 16  77 67 60 30 85  45 14 92 12 67  32 98 70 98 48
45 89 73 73 80  35 67 21 77 63  24 33 56 85 17  88 43 58 82 59  53 23 34 4 33
"""


def test_row_59_the_moments_of_the_printed_array():
    integers = jnp.array([int(each) for each in PRINTED.split()]).reshape(10, 5)
    x = integers.astype(jnp.float32)
    moments = measure(x, reduction_axes=0)
    np.testing.assert_allclose(moments.mean, [53.1, 46.8, 53.8, 57.1, 53.7], rtol=1e-6)
    expected = [421.09, 896.96, 598.36, 1056.69, 542.61]
    np.testing.assert_allclose(moments.var, expected, rtol=1e-6)
    both = measure(x, reduction_axes=(0, 1))
    assert float(both.mean) == pytest.approx(52.9, rel=1e-6)
    assert float(both.var) == pytest.approx(714.41, rel=1e-6)
    with pytest.raises(TypeError, match=r"x\.astype\(jnp\.float32\)"):
        measure(integers, reduction_axes=0)


def batches(rng, number, size):
    """The moments of random batches of N(5, 2²)."""
    x = rng.normal(5, 2, (number, size)).astype(np.float32)
    return [
        Moments(*each)
        for each in zip(*measure(jnp.asarray(x), reduction_axes=1), strict=True)
    ]


def read(estimator, moments):
    update = jax.jit(estimator.update)
    state = estimator.init(())
    for each in moments:
        state = update(state, each)
    return estimator.read(state)


def test_row_10_the_population_estimates_are_unbiased(rng):
    """E[μ_B] and m/(m − 1)·E[σ²_B] for batches of four; biased without m/(m − 1)."""
    moments = batches(rng, 4000, 4)
    for estimator in (population(), population(pooled=False)):
        _, mean, var = read(estimator, moments)
        assert float(mean) == pytest.approx(5, abs=0.05)
        assert float(var) == pytest.approx(4, rel=0.03)
    biased = read(population(pooled=False, unbiased=False), moments).var
    assert float(biased) == pytest.approx(4 * 3 / 4, rel=0.03)


def test_row_10_of_batches_that_differ_the_paper_leaves_out_the_spread_of_means(rng):
    x = rng.normal(5, 2, 4000).astype(np.float32)
    ordered = jnp.asarray(np.sort(x).reshape(1000, 4))
    moments = [
        Moments(*each) for each in zip(*measure(ordered, reduction_axes=1), strict=True)
    ]
    assert float(read(population(), moments).var) == pytest.approx(x.var(ddof=1), rel=1e-3)
    assert float(read(population(pooled=False), moments).var) < 0.1


def test_rows_20_and_58_the_estimate_is_steadier_than_the_batches(rng):
    """Training uses the statistics of each batch, prediction those of all batches."""
    moments = batches(rng, 400, 16)
    of_batches = np.array([float(each.mean) for each in moments])
    update = jax.jit(ema(0.99, debias=True).update)
    state, followed = ema(0.99, debias=True).init(()), []
    for each in moments:
        state = update(state, each)
        followed.append(float(state.mean))
    assert np.std(of_batches) == pytest.approx(2 / np.sqrt(16), rel=0.15)
    assert np.std(followed[200:]) < np.std(of_batches) / 5
    assert abs(followed[-1] - 5) < 0.2


def test_row_61_the_printed_decays_of_the_warm_up():
    """The remainder of a start at 1, if all batches have a mean of 0."""
    estimator = ema(0.99, warmup=True)
    nothing = Moments(*jnp.float32([1, 0, 0]))
    printed = {0: 0.1, 1: 0.181818, 10: 0.55, 100: 0.918182, 889: 0.99, 5000: 0.99}
    for n, decay in printed.items():
        state = CountedStatistics(jnp.float32(1), jnp.float32(1), jnp.int32(n))
        kept = float(estimator.update(state, nothing).mean)
        assert kept == pytest.approx(decay, abs=2e-5)


def test_row_62_the_running_mean_is_the_arithmetic_mean(rng):
    """The mean mv ← t/(t + 1)·mv + a/(t + 1)."""
    values = rng.normal(3, 1, 50).astype(np.float32)
    expected, kept = 0.0, []
    for t, value in enumerate(values):
        expected = t / (t + 1) * expected + value / (t + 1)
        kept.append(expected)
    moments = [Moments(*jnp.float32([1, value, 0])) for value in values]
    state, followed = cumulative().init(()), []
    for each in moments:
        state = cumulative().update(state, each)
        followed.append(float(state.mean))
    np.testing.assert_allclose(followed, kept, rtol=1e-5)
    assert followed[-1] == pytest.approx(values.mean(), rel=1e-5)


def average(decay, start, values):
    """Returns the running mean after each value, for Statistics that start at `start`."""
    update = jax.jit(ema(decay).update)
    state, seen = Statistics(jnp.array(start), jnp.array(0.0)), []
    for value in values:
        state = update(state, Moments(*np.float32([1, value, 0])))
        seen.append(float(state.mean))
    return seen


def test_row_60_the_shadow_follows_and_more_steadily_with_a_larger_decay(rng):
    values = rng.normal(size=200)
    shadow, expected = 3.0, []
    for value in values:
        shadow = 0.99 * shadow + (1 - 0.99) * value
        expected.append(shadow)
    np.testing.assert_allclose(average(0.99, 3.0, values), expected, rtol=1e-4, atol=1e-5)
    unsteadiness = [
        np.std(np.diff(average(decay, 0.0, values))) for decay in (0.9, 0.99, 0.999)
    ]
    assert unsteadiness[0] > 5 * unsteadiness[1] > 25 * unsteadiness[2]


def test_row_63_the_printed_moving_averages():
    assert average(0.9, 1.0, [2.0, 3.0, 4.0]) == pytest.approx([1.1, 1.29, 1.561], rel=1e-6)
