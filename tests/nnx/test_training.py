"""Trains a model, written as a user would."""

import chex
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from tests.modules.apis import normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(8, 3)
Y = jnp.sum(X**2, -1, keepdims=True)


def test_trains_with_optax_under_jit():
    """Steps lower the loss and update the statistics; evaluation does not."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(3, 8, use_bias=False, rngs=rngs),
        jx.BatchNorm(8, momentum=0.5, rngs=rngs),
        nnx.relu,
        nnx.Linear(8, 1, rngs=rngs),
    )
    optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradient = nnx.value_and_grad(lambda model: jnp.mean((model(X) - Y) ** 2))(
            model
        )
        optimizer.update(model, gradient)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(50)]
    assert losses[-1] < 0.2 * losses[0]
    statistics = nnx.state(nnx.clone(model), nnx.BatchStat)
    chex.assert_tree_all_finite(statistics)
    assert (model.layers[1].mean[...] != 0).all()
    model.eval()
    assert model(X).shape == (8, 1)
    chex.assert_trees_all_equal(nnx.state(model, nnx.BatchStat), statistics)
