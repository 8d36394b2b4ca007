"""Accuracy of the norms, on data that is hard in single precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import batch_norm, ema, measure
from tests.support import oracle
from tests.support.cases import EPSILON, NORMS, WEIGHTINGS, Case, Layout, rows

pytestmark = pytest.mark.optimized

ULP = 2.0**-23
MEANS = (0.0, 10.0, 1e3, 1e4, 1e6)
CASES = [
    Case(norm, layout, "float32", weighting)
    for norm in NORMS
    if norm.own_moments
    for layout in norm.long
    for weighting in WEIGHTINGS
]


@functools.cache
def compiled(case):
    """Returns a compiled function for the output and gradients of a case."""

    @jax.jit
    def run(x, scale, bias, g):
        y, vjp = jax.vjp(case.apply, x, scale, bias)
        return y, *vjp(g)

    return run


def runs(case, draw):
    """Yields mean, arrays, and the actual and expected results, for each of the means."""
    normal, scale, bias, g = case.arrays()
    for mean in MEANS:
        x = ((np.asarray(normal) - 1) / 2 + mean).astype(np.float32)  # N(mean, 1)
        arrays = (x, scale, bias, draw(g))
        yield mean, arrays, compiled(case)(*arrays), case.expect(*arrays)


# The last layout of each norm; masks are computed like weights.
FAST = [
    case for case in CASES if case.layout == case.norm.long[-1] and case.weighting != "mask"
]


@pytest.mark.parametrize("case", rows(CASES, FAST), ids=str)
def test_output_is_backward_stable(case):
    """Errors are a few ulps of x / its standard deviation, and of the terms of y."""
    for mean, (_, scale, bias, _), (y, *_), expected in runs(case, lambda g: g):
        gamma, beta = (oracle.along(each, case.features, y.ndim) for each in (scale, bias))
        parts = (1, np.abs(gamma), np.abs(expected.y - beta), np.abs(expected.y))
        size = functools.reduce(np.maximum, parts)
        assert (np.abs(y - expected.y) <= 4 * ULP * (1 + mean) * size).all()


@pytest.mark.parametrize("case", rows(CASES, FAST), ids=str)
def test_gradients_are_backward_stable(case):
    """Relative to the largest gradients for such cotangents: noise, and 1 plus noise."""
    for offset in (0, 1):
        for mean, (_, scale, _, g), (_, *gradients), expected in runs(
            case, lambda g, offset=offset: offset + g
        ):
            largest = np.abs(scale).max() * np.abs(g).max()
            summed = np.abs(g).sum(case.layout.others).max()
            for got, want, size in zip(
                gradients, expected[1:4], (largest, summed, summed), strict=True
            ):
                assert np.abs(got - want).max() <= 4 * ULP * (1 + mean) * size


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mean", [100, 1e4])
def test_statistics_of_16_bits_are_those_of_float32(rng, dtype, mean, weighting):
    case = Case(NORMS[0], Layout((4096, 4), -1), dtype, weighting)
    x = jnp.asarray(rng.normal(mean, mean / 50, case.shape), dtype)
    moments = jax.jit(lambda x: measure(x, 0, case.weights()))(x)
    weights = case.weights()
    expected = oracle.moments(x, (0,), None if weights is None else np.asarray(weights))
    for got, want in zip(moments, expected, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want[0], rtol=4 * ULP * 50)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_features_of_wildly_different_scale_do_not_disturb_each_other(rng, weighted):
    sizes = np.float32(10.0) ** np.arange(-14, 15, 4)
    x = (rng.normal(1, 1, (512, len(sizes))) * sizes).astype(np.float32)
    weights = rng.uniform(size=(512, 1)) < 0.7 if weighted else None
    _, mean, var = oracle.moments(x, (0,), weights)
    moments = measure(x, 0, weights)
    assert (np.abs(moments.mean - mean[0]) <= 4 * ULP * sizes).all()
    np.testing.assert_allclose(moments.var, var[0], rtol=16 * ULP)
    g = rng.normal(size=x.shape).astype(np.float32)
    y, vjp = jax.vjp(lambda x: train(x, epsilon=0.0, weights=weights)[0], x)
    one, zero = np.ones_like(sizes), np.zeros_like(sizes)
    expected = oracle.norm_by_own_moments(
        x, one, zero, g, reduced=(0,), features=(1,), epsilon=0.0, weights=weights
    )
    np.testing.assert_allclose(y, expected.y, atol=64 * ULP)
    dx = np.asarray(vjp(g)[0])
    np.testing.assert_allclose(dx * sizes, expected.dx * sizes, atol=64 * ULP)


def train(x, *, epsilon=1e-5, weights=None):
    """Returns the output, and the moments of the batch as statistics."""
    this = ema(0.0)
    return batch_norm(
        x,
        this.init(x.shape[-1:]),
        train=True,
        epsilon=epsilon,
        estimator=this,
        weights=weights,
    )


CONSTANTS = (0.0, -0.1, 7.7, 1e6 + 0.3, 1e20, -2.1642801e32, 3e38, -3.3e38, 1e-20)
SMALLEST = (1e-30, 1e-40)  # their shares of a weighted sum underflow


@pytest.mark.parametrize(
    "epsilon",
    [0.0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1e-12, 1e-5))],
)
@pytest.mark.parametrize("n", rows([1, 2, 7, 59, 1000, 4096], [59]))
@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_feature_gives_its_bias(n, epsilon, weighted):
    """Also where Σx overflows, or Σx/n is off by a few ulps."""
    x = np.tile(np.float32(CONSTANTS + (() if weighted else SMALLEST)), (n, 1))
    weights = np.where(np.arange(n) % 3, 0.7, 1.1).astype(np.float32)[:, None]
    y, statistics = train(x, epsilon=epsilon, weights=weights if weighted else None)
    np.testing.assert_array_equal(y, np.zeros_like(x))
    np.testing.assert_allclose(statistics.mean, x[0], rtol=2 * ULP, atol=1e-38)
    np.testing.assert_array_equal(statistics.var, np.zeros_like(x[0]))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_feature_has_no_gradient_by_its_scale(rng, weighted):
    x = np.tile(np.float32([0.1, 7.7, 1e6 + 0.3]), (4096, 1))
    g = rng.normal(1, 1, x.shape).astype(np.float32)
    weights = np.full((4096, 1), 0.3, np.float32) if weighted else None

    @jax.jit
    def loss(scale):
        statistics = ema(0.9).init((3,))
        return jnp.sum(
            g
            * batch_norm(
                x, statistics, scale, train=True, estimator=ema(0.99), weights=weights
            )[0]
        )

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(3)), jnp.zeros(3))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("start", rows([1.0, 1e4, 1e6, 1.7e9], [1.0]))
def test_two_values_an_ulp_apart_are_no_constant(start, weighted):
    """Either value is within rounding of the mean, yet the variance is not 0."""
    one, ulp = np.float32(start), np.spacing(np.float32(start))
    for apart in (1, 2, 4, 8, 16):
        for pattern in ([0, 1], [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0], 59 * [0, 1]):
            x = (one + apart * ulp * np.array(pattern, np.float32))[:, None]
            y, _ = train(x, epsilon=0.0, weights=np.ones_like(x) if weighted else None)
            _, mean, var = oracle.moments(x, (0,))
            expected = (x - mean) / np.sqrt(var)
            bound = 4 * ULP * (1 + mean / np.sqrt(var)) * np.maximum(1, np.abs(expected))
            assert (np.abs(y - expected) <= bound).all()


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-3, 1.0])
def test_a_constant_but_for_one_sample_is_none(size):
    """The mean differs from the first sample by no more than the error of the sum."""
    x = np.full((4096, 1), 1.7, np.float32)
    x[1000] += np.float32(size)
    y, _ = train(x, epsilon=0.0)
    _, mean, var = oracle.moments(x, (0,))
    expected = (x - mean) / np.sqrt(var)
    bound = 4 * ULP * (1 + mean / np.sqrt(var)) * np.maximum(1, np.abs(expected))
    assert (np.abs(y - expected) <= bound).all()


def test_an_almost_constant_feature_is_none(rng):
    """At |μ|/σ = 10⁵, σ is a few ulps of μ, but is still distinguished from rounding."""
    x = (1e5 + rng.normal(size=(4096, 16))).astype(np.float32)
    y, statistics = train(x)
    np.testing.assert_allclose(statistics.var, x.astype(np.float64).var(0), rtol=1e-2)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.slow
def test_large_values_do_not_overflow_where_their_variance_does_not(rng, weighted):
    """Provided that n times the variance does not overflow."""
    x = (1e15 * rng.normal(size=(64, 4))).astype(np.float32)
    weights = np.ones((64, 1), np.float32) if weighted else None
    y, statistics = train(x, weights=weights)
    _, mean, var = oracle.moments(x, (0,))
    np.testing.assert_allclose(statistics.var, var[0], rtol=1e-5)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var), atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_variance_that_overflows_is_seen(rng, weighted):
    """An infinite variance would give the bias for every x, and hide the overflow."""
    x = (1e30 * rng.normal(size=(64, 4))).astype(np.float32)
    weights = np.ones((64, 1), np.float32) if weighted else None
    y, statistics = train(x, weights=weights)
    assert jnp.isnan(y).all()
    assert not jnp.isfinite(statistics.var).any()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_in_its_feature_and_in_no_other(rng, poison):
    x = rng.normal(size=(64, 3)).astype(np.float32)
    clean, _ = train(x)
    for row in (0, 5):
        spoilt = x.copy()
        spoilt[row, 1] = poison
        y, statistics = train(spoilt)
        assert not np.isfinite(statistics.mean[1])
        assert np.isnan(y[:, 1]).all()
        np.testing.assert_array_equal(y[:, [0, 2]], clean[:, [0, 2]])


def test_one_sample_of_each_feature_gives_the_bias(rng):
    x = rng.normal(size=(1, 5)).astype(np.float32)
    y, statistics = train(x, epsilon=0.0)
    np.testing.assert_array_equal(y, np.zeros_like(x))
    np.testing.assert_array_equal(statistics.mean, x[0])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_float64_stays_float64(weighting):
    case = Case(NORMS[0], Layout((64, 3), -1), "float64", weighting)
    with jax.enable_x64(True):
        x, scale, bias, _ = case.arrays()
        x = 1e10 + x
        expected = case.expect(x, scale, bias, x)
        y = jax.jit(case.apply)(x, scale, bias)
        assert EPSILON > 1e-10  # else ε would not be negligible
        np.testing.assert_allclose(y, expected.y, atol=8 * np.finfo(float).eps * 1e10)


# Layouts that XLA on a CPU sums one element after another, and regressions there.

ONE_BY_ONE = (
    ((128, 16, 4, 4), 1),
    ((5, 6, 5, 24), -1),
    ((256, 8, 4, 4), 1),
    ((1000, 16, 3), 1),
    ((10000, 8, 3), 1),
)


def by_batch(x, axis, weights=None, epsilon=0.0):
    """Returns a function of x and g: (y, (dx, dscale, dbias)) of batch norm in training."""
    features = (x.shape[axis],)
    one, zero = jnp.ones(features), jnp.zeros(features)

    def norm(x, scale, bias):
        state, kept = ema(0.0).init(features), ema(0.0)
        return batch_norm(
            x,
            state,
            scale,
            bias,
            train=True,
            feature_axes=axis,
            epsilon=epsilon,
            estimator=kept,
            weights=weights,
        )[0]

    return jax.jit(lambda x, g: (lambda y, vjp: (y, vjp(g)))(*jax.vjp(norm, x, one, zero)))


@pytest.mark.parametrize("layout", rows(ONE_BY_ONE, ONE_BY_ONE[:2]))
def test_a_constant_gives_its_bias_in_any_layout(layout):
    shape, axis = layout
    x = np.full(shape, 1000.3, np.float32)
    y, (_, dscale, _) = by_batch(x, axis)(x, np.ones_like(x))
    np.testing.assert_array_equal(y, np.zeros_like(x))
    np.testing.assert_array_equal(dscale, np.zeros_like(dscale))


@pytest.mark.parametrize("layout", rows(ONE_BY_ONE, ONE_BY_ONE[3:4]))
def test_the_bound_holds_in_any_layout(rng, layout):
    shape, axis = layout
    x = rng.normal(10, 1, shape).astype(np.float32)
    g = rng.normal(1, 1, shape).astype(np.float32)
    y, (_, _, dbias) = by_batch(x, axis)(x, g)
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    _, mean, var = oracle.moments(x, others)
    expected = (x - mean) / np.sqrt(var)
    assert (np.abs(y - expected) <= 44 * ULP * np.maximum(1, np.abs(expected))).all()
    total = g.astype(np.float64).sum(others)
    assert (np.abs(dbias - total) <= 4 * ULP * np.abs(g).sum(others)).all()


def test_first_middle_and_last_alike_are_no_constant():
    """The mean is as close to these samples as to the rest."""
    n = 4097
    x = np.float32(1) + np.float32(2e-7) * (np.arange(n) % 3).astype(np.float32)
    x[[0, n // 2, n - 1]] = 1
    y, statistics = train(x[:, None], epsilon=0.0)
    _, mean, var = oracle.moments(x, (0,))
    bound = 4 * ULP * (1 + mean / np.sqrt(var))
    assert np.abs(np.sqrt(statistics.var[0]) / np.sqrt(var) - 1) <= bound
    expected = ((x - mean) / np.sqrt(var))[:, None]
    assert (np.abs(y - expected) <= bound * np.maximum(1, np.abs(expected))).all()


def test_masked_values_some_ulps_apart_have_a_variance(rng):
    shape = (5, 24, 6, 5)
    x = np.float32(30773420) + 2 * rng.integers(-1, 2, shape).astype(np.float32)
    mask = np.arange(150).reshape(5, 1, 6, 5) < 133
    moments = measure(x, (0, 2, 3), mask)
    _, mean, var = oracle.moments(x, (0, 2, 3), mask)
    np.testing.assert_allclose(moments.var, var.ravel(), rtol=1e-5)
    np.testing.assert_allclose(moments.mean, mean.ravel(), rtol=ULP)


@pytest.mark.parametrize(("size", "deviation"), [(1e30, 1e5), (1e-30, 1e-6)])
def test_weights_of_any_size_are_shares(rng, size, deviation):
    """Derivatives also divide by the sum before they multiply."""
    x = (deviation * rng.normal(size=(512, 3))).astype(np.float32)
    weights = (size * rng.uniform(0.5, 1, (512, 1))).astype(np.float32)
    g = rng.normal(size=x.shape).astype(np.float32)
    y, (dx, _, _) = by_batch(x, -1, weights, epsilon=1e-20)(x, g)
    one, zero = np.ones(3), np.zeros(3)
    expected = oracle.norm_by_own_moments(
        x, one, zero, g, reduced=(0,), features=(1,), epsilon=1e-20, weights=weights
    )
    np.testing.assert_allclose(y, expected.y, atol=1e-5)
    np.testing.assert_allclose(dx * deviation, expected.dx * deviation, atol=1e-5)
