"""Trains a model, written as a user would."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

import jaxnorm.linen as jn
from tests.modules.apis import KEY, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(8, 3)
Y = jnp.sum(X**2, -1, keepdims=True)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = jn.BatchNorm(train=train, momentum=0.5)(nn.Dense(8, use_bias=False)(x))
        return nn.Dense(1)(nn.relu(x))


def test_trains_with_optax_under_jit():
    """Steps lower the loss and update the statistics."""
    model, optimizer = Model(), optax.adam(0.05)
    variables = model.init(KEY, X, train=False)

    @jax.jit
    def step(params, statistics, state):
        def loss(params):
            out, updates = model.apply(
                {"params": params, "batch_stats": statistics},
                X,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean((out - Y) ** 2), updates["batch_stats"]

        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), statistics, state, value

    params, statistics = variables["params"], variables["batch_stats"]
    state, losses = optimizer.init(params), []
    for _ in range(50):
        params, statistics, state, value = step(params, statistics, state)
        losses.append(float(value))
    assert losses[-1] < 0.2 * losses[0]
    chex.assert_tree_all_finite(statistics)
    assert (statistics["BatchNorm_0"]["mean"] != 0).all()
