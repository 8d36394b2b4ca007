"""Claims about batch normalisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm.linen as jn
from jaxnorm import Statistics, batch_norm
from tests.sources.compiled import measure, normalize_batch


@pytest.fixture
def x(rng):
    """Skewed features with different means and standard deviations."""
    return jnp.asarray(rng.gamma(2.0, 1.0, (64, 3)) * [1, 5, 20] + [0, 3, -40], jnp.float32)


def test_row_3_the_four_steps(x, rng):
    gamma, beta = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    mu = x.sum(0) / 64
    var = ((x - mu[None]) ** 2).sum(0) / 64  # divided by m, not m − 1
    normalized = (x - mu[None]) / jnp.sqrt(var + 1e-3)[None]
    expected = gamma[None] * normalized + beta[None]
    np.testing.assert_allclose(
        normalize_batch(x, gamma, beta, epsilon=1e-3), expected, rtol=1e-5, atol=1e-5
    )


def test_row_4_only_the_first_two_moments_change(x):
    """The source says "a standard normal", but the skewness remains."""

    def skewness(x):
        centred = x - x.mean(0, keepdims=True)
        return (centred**3).mean(0) / (centred**2).mean(0) ** 1.5

    y = normalize_batch(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-5)
    np.testing.assert_allclose(skewness(y), skewness(x), rtol=1e-4)
    assert (skewness(y) > 0.5).all()  # that of a normal distribution is 0


def test_row_5_a_batch_of_two_gives_one_and_minus_one():
    y = normalize_batch(jnp.array([[3.0, -5.0, 0.1], [1.0, 800.0, 0.2]]))
    np.testing.assert_allclose(y, [[1, -1, -1], [-1, 1, 1]], rtol=1e-6)


def test_row_7_without_scale_and_bias_sigmoid_is_nearly_linear_and_relu_zeroes_half(rng):
    y = normalize_batch(jnp.asarray(rng.normal(-6, 3, (200_000, 1)), jnp.float32))[:, 0]
    correlation = np.corrcoef(y, jax.nn.sigmoid(y))[0, 1]
    assert correlation**2 == pytest.approx(0.984, abs=1e-3)
    assert float((jax.nn.relu(y) == 0).mean()) == pytest.approx(0.5, abs=5e-3)


def test_row_8_scale_and_bias_can_restore_the_input_one_pair_a_feature(x):
    """The source says "the same for every dimension", but there is one pair for each."""
    epsilon = 1e-3
    _, mean, var = measure(x, reduction_axes=0)
    restored = normalize_batch(x, jnp.sqrt(var + epsilon), mean, epsilon=epsilon)
    np.testing.assert_allclose(restored, x, rtol=1e-5, atol=1e-4)
    norm = jn.BatchNorm(train=False)
    parameters = jax.eval_shape(norm.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, parameters) == {"scale": (3,), "bias": (3,)}


def test_row_9_one_sample_has_no_statistics(x):
    beta = jnp.array([1.0, 2.0, 3.0])
    alone = x[:1]
    np.testing.assert_array_equal(normalize_batch(alone, jnp.ones(3), beta)[0], beta)
    statistics = Statistics(*measure(x, reduction_axes=0)[1:])
    y, _ = batch_norm(alone, statistics, jnp.ones(3), beta, train=False)
    assert (y[0] != beta).all()


def test_row_15_a_sample_depends_on_its_batch_in_training_only(x):
    mates, others = x[:8], jnp.concatenate([x[:1], x[20:27]])
    assert (normalize_batch(mates)[0] != normalize_batch(others)[0]).all()
    statistics = Statistics(*measure(x, reduction_axes=0)[1:])
    evaluated = [batch_norm(b, statistics, train=False)[0][0] for b in (mates, others)]
    np.testing.assert_array_equal(*evaluated)


def test_row_26_the_inputs_of_a_layer_stay_while_the_layer_before_changes(x, rng):
    for size in (0.01, 1.0, 100.0):
        weights = jnp.asarray(rng.normal(size=(3, 5)) * size, jnp.float32)
        y = normalize_batch(x @ weights)
        np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)


def test_rows_31_and_49_the_output_has_mean_beta_and_deviation_gamma(x):
    """Before the activation; for a negative γ, the standard deviation is |γ|."""
    gamma, beta = jnp.array([2.0, -3.0, 0.5]), jnp.array([1.0, 0.0, -1.0])
    y = normalize_batch(x, gamma, beta)
    np.testing.assert_allclose(y.mean(0), beta, atol=1e-5)
    np.testing.assert_allclose(y.var(0), gamma**2, rtol=1e-4)


def test_rows_45_and_47_z_becomes_the_standardised_z_scaled_and_shifted(rng):
    inputs = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    gamma, beta = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.1, 0.2, 0.3])
    z = inputs @ w
    z_n = (z - z.mean(0)[None]) / z.std(0)[None]
    np.testing.assert_allclose(normalize_batch(z), z_n, rtol=1e-4, atol=1e-5)
    a = jax.nn.relu(z_n * gamma[None] + beta[None])
    np.testing.assert_allclose(
        jax.nn.relu(normalize_batch(z, gamma, beta)), a, rtol=1e-4, atol=1e-5
    )


def test_row_48_a_bias_before_batch_norm_cancels(x):
    b = jnp.array([5.0, -7.0, 0.25])
    np.testing.assert_allclose(normalize_batch(x + b[None]), normalize_batch(x), atol=2e-5)

    @jax.jit
    @jax.grad
    def gradient(b):
        return jnp.sum(jnp.sin(normalize_batch(x + b[None])))

    np.testing.assert_allclose(gradient(b), 0, atol=1e-4)
    # In evaluation, it cancels only after the statistics have been updated with it.
    seen, unseen = (
        Statistics(*measure(each, reduction_axes=0)[1:]) for each in (x + b[None], x)
    )
    right, _ = batch_norm(x + b[None], seen, train=False)
    wrong, _ = batch_norm(x + b[None], unseen, train=False)
    without, _ = batch_norm(x, unseen, train=False)
    np.testing.assert_allclose(right, without, atol=2e-5)
    assert float(jnp.abs(wrong - without).min()) > 1e-3


def test_row_57_the_flow_s1_s2_s3_relu_sums_from_the_first_sample(rng):
    """The source sums from i = 0 to m, but there are m samples, not m + 1."""
    x = jnp.asarray(rng.normal(size=(16, 6)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    gamma, beta = jnp.linspace(0.5, 2, 4), jnp.linspace(-1, 1, 4)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            s1 = nn.Dense(4, use_bias=False, name="w")(x)
            return nn.relu(jn.BatchNorm(train=True, epsilon=1e-10, name="bn")(s1))

    variables = {
        "params": {"w": {"kernel": w}, "bn": {"scale": gamma, "bias": beta}},
        "batch_stats": {"bn": {"mean": jnp.zeros(4), "var": jnp.ones(4)}},
    }
    h1, _ = jax.jit(Layer().apply, static_argnames="mutable")(
        variables, x, mutable=("batch_stats",)
    )
    s1 = np.asarray(x) @ np.asarray(w)
    mu = sum(s1[i] for i in range(16)) / 16
    var = sum((s1[i] - mu) ** 2 for i in range(16)) / 16
    s3 = np.asarray(gamma) * ((s1 - mu) / np.sqrt(var + 1e-10)) + np.asarray(beta)
    np.testing.assert_allclose(h1, np.maximum(s3, 0), rtol=1e-4, atol=1e-5)
