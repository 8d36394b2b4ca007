"""Claims about training: noise, padding, shifted data, steps and the loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnorm
from tests.sources.compiled import measure, normalize_batch


def test_row_11_in_evaluation_the_norm_is_one_affine_map_which_a_layer_can_take(rng):
    """Here it is folded into the dense layer before it; see tests/model/test_folding.py."""
    inputs, w = np.float32(rng.normal(2, 3, (16, 4))), np.float32(rng.normal(size=(4, 3)))
    gamma, beta = np.float32([[1, -2, 3], [0.5, 0, -1]])
    running = jaxnorm.Statistics(np.float32([1, -2, 5]), np.float32([4, 0.25, 9]))
    evaluated, _ = jaxnorm.batch_norm(inputs @ w, running, gamma, beta, train=False)
    scale = gamma / np.sqrt(running.var + 1e-5)
    shift = beta - scale * running.mean
    np.testing.assert_allclose(evaluated, inputs @ w * scale + shift, rtol=1e-4, atol=1e-4)
    folded = inputs @ (w * scale) + shift
    np.testing.assert_allclose(evaluated, folded, rtol=1e-4, atol=1e-4)


def test_row_21_dropout_shrinks_the_mean_to_p_unless_it_is_divided_by_p(rng):
    """The source's dropout shrinks outputs in training; flax's, divided by p, does not."""
    x, kept = np.float32(rng.uniform(1, 2, 8)), 0.6
    masks = rng.random((20_000, 8)) < kept
    np.testing.assert_allclose((masks * x).mean(0), kept * x, rtol=0.03)

    draw = nn.Dropout(1 - kept, deterministic=False)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: draw.apply({}, x, rngs={"dropout": key})))(keys)
    np.testing.assert_allclose(np.asarray(drawn).mean(0), x, rtol=0.03)
    # Dropout is deterministic if switched off; if left on, outputs are random.
    np.testing.assert_array_equal(nn.Dropout(1 - kept, deterministic=True).apply({}, x), x)
    deviation = x * np.sqrt((1 - kept) / kept)
    np.testing.assert_allclose(np.asarray(drawn).std(0), deviation, rtol=0.03)


def test_row_39_padding_shifts_the_statistics_unless_it_is_masked(rng):
    text = np.float32(rng.normal(5, 2, (4, 6, 3)))
    padded = np.pad(text, ((0, 0), (0, 6), (0, 0)))
    real = np.arange(12) < 6
    whole, shifted = measure(text, (0, 1)), measure(padded, (0, 1))
    np.testing.assert_allclose(shifted.mean, whole.mean / 2, rtol=1e-5)

    @jax.jit
    def norm(x, mask):
        start = jaxnorm.ema(0.99).init((3,))
        return jaxnorm.batch_norm(
            x, start, weights=mask, train=True, estimator=jaxnorm.ema(0.99)
        )

    y, running = norm(text, np.ones((1, 6, 1), bool))
    masked, running_masked = norm(padded, real[None, :, None])
    np.testing.assert_allclose(masked[:, :6], y, atol=1e-5)
    np.testing.assert_allclose(running_masked.mean, running.mean, rtol=1e-5)
    unmasked = np.asarray(normalize_batch(padded))[:, :6]
    assert abs(unmasked - np.asarray(y)).max() > 0.3


def test_row_51_larger_weights_take_smaller_steps_behind_batch_norm(rng):
    """BN((aW)x) = BN(Wx), and ∂BN/∂(aW) = ∂BN/∂W / a: 1502.03167, section 3.3."""
    x = np.float32(rng.normal(size=(64, 5)))
    w, target = np.float32(rng.normal(size=(5, 4))), np.float32(rng.normal(size=(64, 4)))

    @jax.jit
    @jax.value_and_grad
    def normalized(w):
        return jnp.mean((normalize_batch(x @ w) - target) ** 2)

    def plain(w):
        return 2 * x.T @ (x @ w - target) / target.size

    loss, gradient = normalized(w)
    large_loss, large_gradient = normalized(10 * w)
    assert float(large_loss) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(large_gradient, gradient / 10, rtol=1e-3, atol=1e-6)
    # So a step that is too large is followed by smaller ones; without BN, by larger ones.
    assert np.linalg.norm(plain(10 * w)) > 5 * np.linalg.norm(plain(w))


def test_row_52_what_was_learnt_of_cars_fails_on_motorcycles_whose_moments_differ(rng):
    """The source's distribution shift, of which a norm removes the first two moments."""

    def rent(power):
        return 20 * np.sqrt(power)

    cars, motorcycles = rng.normal(100, 10, 500), rng.normal(20, 3, 500)
    learnt = np.polynomial.Polynomial.fit(cars, rent(cars), 1)
    errors = [np.std(learnt(each) - rent(each)) for each in (cars, motorcycles)]
    bias = np.mean(learnt(motorcycles) - rent(motorcycles))
    assert errors[0] < 1
    assert bias > 15
    for each in (cars, motorcycles):
        y = np.asarray(normalize_batch(np.float32(each[:, None])))
        assert y.mean() == pytest.approx(0, abs=1e-5)
        assert y.std() == pytest.approx(1, rel=1e-4)


def test_row_53_the_noise_of_a_batch_is_small_and_falls_with_its_size(rng):
    """The same sample, in 400 batches of each size."""
    noise = []
    for size in (16, 64, 256):
        mates = np.float32(rng.normal(size=(size - 1, 400)))
        sample = np.full((1, 400), 1, np.float32)
        noise.append(
            np.std(np.asarray(normalize_batch(np.concatenate([sample, mates])))[0])
        )
    assert noise[0] < 0.4  # outputs have standard deviation 1
    np.testing.assert_allclose(noise[0] / np.array(noise), [1, 2, 4], rtol=0.2)


def test_row_67_the_log_of_a_softmax_is_nan_where_the_softmax_is_0():
    logits, target = np.float32([[0, 200]]), np.float32([[0, 1]])

    @jax.jit
    def losses(logits):
        of_the_program = -jnp.sum(target * jnp.log(jax.nn.softmax(logits)))
        return of_the_program, optax.softmax_cross_entropy(logits, target)[0]

    of_the_program, stable = losses(logits)
    assert np.isnan(of_the_program)
    assert float(stable) == 0
