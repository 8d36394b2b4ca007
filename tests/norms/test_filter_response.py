"""What is special to filter response normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm import filter_response_norm

X = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))


def test_is_the_layer_of_the_paper():
    """Its listing, in NumPy: TLU(γ·x·rsqrt(ν² + |ε|) + β)."""
    gamma, beta, tau = np.random.default_rng(0).normal(size=(3, 5))
    x = np.asarray(X, np.float64)
    nu2 = np.mean(np.square(x), axis=(1, 2), keepdims=True)
    expected = np.maximum(gamma * x / np.sqrt(nu2 + abs(1e-6 + 1e-2)) + beta, tau)
    scale, bias, threshold = np.float32([gamma, beta, tau])
    y = filter_response_norm(
        X, scale, bias, threshold=threshold, learned_epsilon=-1e-2, epsilon=1e-6
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_threshold_of_zero_is_a_relu():
    plain = filter_response_norm(X)
    np.testing.assert_array_equal(
        filter_response_norm(X, threshold=0.0), jax.nn.relu(plain)
    )


@pytest.mark.parametrize("learned", [None, 0.0, 0.1])
def test_zeros_give_the_bias_and_finite_gradients(learned):
    zeros, bias = jnp.zeros((2, 3, 5)), jnp.arange(5.0)

    def norm(x, epsilon=learned):
        return filter_response_norm(x, None, bias, learned_epsilon=epsilon, epsilon=0.0)

    np.testing.assert_array_equal(norm(zeros), jnp.broadcast_to(bias, zeros.shape))
    assert jnp.isfinite(jax.grad(lambda x: norm(x).sum())(zeros)).all()
    if learned is not None:
        assert jnp.isfinite(jax.grad(lambda e: norm(zeros, e).sum())(learned))
    if learned:  # y = x/√|εₗ| + β near 0
        slope = jax.grad(lambda x: norm(x).sum())(zeros)
        np.testing.assert_allclose(slope, 1 / np.sqrt(learned), rtol=1e-5)


@pytest.mark.parametrize("name", ["threshold", "learned_epsilon"])
def test_what_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} has shape \(4,\)"):
        filter_response_norm(X, **{name: jnp.ones(4)})


def test_a_learned_epsilon_of_each_position_is_refused():
    with pytest.raises(ValueError, match=r"over the axes \(1, 2\)"):
        filter_response_norm(X, learned_epsilon=jnp.ones(X.shape))
    by_sample = filter_response_norm(X, learned_epsilon=jnp.ones((2, 1, 1, 5)))
    np.testing.assert_allclose(
        by_sample, filter_response_norm(X, learned_epsilon=1.0), rtol=1e-6
    )


def test_one_position_needs_a_learned_epsilon():
    """Without, the output of a fully connected layer is ±γ + β: only a sign is left."""
    x = X[:, :1, 0]
    np.testing.assert_allclose(filter_response_norm(x), jnp.sign(x), rtol=1e-3)
    learned = filter_response_norm(x, learned_epsilon=1.0)
    np.testing.assert_allclose(learned, x / jnp.sqrt(jnp.square(x) + 1), rtol=1e-4)


def test_modules_learn_a_threshold_and_a_part_of_epsilon():
    module = jn.FilterResponseNorm(use_learned_epsilon=True)
    shapes = jax.tree.map(jnp.shape, module.init(jax.random.key(0), X)["params"])
    assert shapes == {
        "scale": (5,),
        "bias": (5,),
        "threshold": (5,),
        "learned_epsilon": (),
    }
    model = jx.FilterResponseNorm(5, use_threshold=False, rngs=nnx.Rngs(0))
    assert model.threshold is None
    np.testing.assert_array_equal(model(X), filter_response_norm(X, jnp.ones(5)))
