"""Accumulated gradients: one update of the statistics per step of the optimiser."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx

pytestmark = pytest.mark.usefixtures("lenient")
MICROBATCHES, STEPS, FEATURES = 3, 2, 4
ESTIMATOR = jaxnorm.accumulate(jaxnorm.ema(0.9), every=MICROBATCHES)
OPTIMIZER = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=MICROBATCHES)
RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, (STEPS, MICROBATCHES, 8, FEATURES)).astype(np.float32)


def of_whole_batches():
    """The statistics after one batch per step, with all samples of the step."""
    state = jaxnorm.ema(0.9).init((FEATURES,))
    for x in X.reshape(STEPS, -1, FEATURES):
        _, state = jaxnorm.batch_norm(x, state, train=True, estimator=jaxnorm.ema(0.9))
    return state


def check(mean, var, params_after_each, statistics_after_each):
    """Checks that both change only after the last microbatch of a step."""
    expected = of_whole_batches()
    chex.assert_trees_all_close((mean, var), tuple(expected), rtol=1e-5)
    for each in (params_after_each, statistics_after_each):
        moved = [
            jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
            for before, after in itertools.pairwise(each)
        ]
        waits = [True] * (MICROBATCHES - 1) + [False]
        assert moved == waits * STEPS


def test_linen_with_multi_steps():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(jn.BatchNorm(train=True, estimator=ESTIMATOR)(x))

    model = Model()
    variables = model.init(jax.random.key(0), X[0, 0])
    params, statistics = variables["params"], variables["batch_stats"]

    @jax.jit
    def step(params, statistics, state, x):
        def loss(params):
            y, updates = model.apply(
                {"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"]
            )
            return jnp.mean(jnp.square(y - 1)), updates["batch_stats"]

        gradient, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = OPTIMIZER.update(gradient, state, params)
        return optax.apply_updates(params, updates), statistics, state

    state = OPTIMIZER.init(params)
    after, kept = [params], [_read(statistics["BatchNorm_0"])]
    for x in X.reshape(-1, 8, FEATURES):
        params, statistics, state = step(params, statistics, state, x)
        after.append(params)
        kept.append(_read(statistics["BatchNorm_0"]))
    check(*kept[-1].values(), after, kept)


def _read(statistics):
    return {name: statistics[name] for name in ("mean", "var")}


def test_nnx_with_multi_steps():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        jx.BatchNorm(FEATURES, estimator=ESTIMATOR, rngs=rngs),
        nnx.Linear(FEATURES, 1, rngs=rngs),
    )
    optimizer = nnx.Optimizer(model, OPTIMIZER.gradient_transformation(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        gradient = nnx.grad(lambda model: jnp.mean(jnp.square(model(x) - 1)))(model)
        optimizer.update(model, gradient)

    def snapshot(kind):
        return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, kind)))

    after, kept = [snapshot(nnx.Param)], [_read(snapshot(nnx.BatchStat)["layers"][0])]
    for x in X.reshape(-1, 8, FEATURES):
        step(model, optimizer, x)
        after.append(snapshot(nnx.Param))
        kept.append(_read(snapshot(nnx.BatchStat)["layers"][0]))
    check(*kept[-1].values(), after, kept)


def test_without_accumulating_each_microbatch_is_an_update():
    """As in flax: a step's three updates keep 0.9³ of the old, without their spread."""
    plain = jaxnorm.ema(0.9)
    state = plain.init((FEATURES,))
    for x in X.reshape(-1, 8, FEATURES):
        state = plain.update(state, jaxnorm.measure(x, 0))
    expected = of_whole_batches()
    assert (np.abs(state.mean) > 1.5 * np.abs(expected.mean)).all()
