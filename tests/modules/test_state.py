"""Variables of every estimator survive what users do to variables."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxnorm
from tests.modules.apis import each_api, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = 2 * normal(8, 3) + 1
ESTIMATORS = {
    "plain": jaxnorm.ema(0.9),
    "warmed up": jaxnorm.ema(0.9, warmup=True),
    "debiased": jaxnorm.ema(0.9, debias=True, warmup=True, unbiased=True),
    "scheduled": jaxnorm.ema(optax.linear_schedule(0.0, 0.9, 5)),
    "cumulative": jaxnorm.cumulative(),
    "population": jaxnorm.population(),
    "guarded": jaxnorm.skip_nonfinite(jaxnorm.ema(0.9, warmup=True)),
    "accumulating": jaxnorm.accumulate(jaxnorm.ema(0.9, debias=True), every=2),
    "guarded accumulation": jaxnorm.skip_nonfinite(
        jaxnorm.accumulate(jaxnorm.cumulative(), every=2)
    ),
}
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def ema_of(one, other):
    transform = optax.ema(0.5, debias=False)
    smoothed, _ = transform.update(other, transform.init(one))
    return jax.tree.map(lambda each: 2 * each, smoothed)


def mean_of_devices(one, other):
    stacked = jax.tree.map(lambda *each: jnp.stack(each), one, other)
    averaged = jax.vmap(lambda each: jax.lax.pmean(each, "i"), axis_name="i")(stacked)
    return jax.tree.map(lambda each: each[0], averaged)


# Each is given the same variables twice, and must return them.
TREATMENTS = {
    "mean": lambda one, other: jax.tree.map(lambda a, b: (a + b) / 2, one, other),
    "incremental update": lambda one, other: optax.incremental_update(other, one, 0.25),
    "optax.ema": ema_of,
    "pmean": mean_of_devices,
    "pickle": lambda one, other: pickle.loads(pickle.dumps(other)),
    "deepcopy": lambda one, other: copy.deepcopy(other),
    "numpy": lambda one, other: jax.tree.map(np.asarray, other),
}


def trained(api, estimator):
    """Returns a model, and its variables after three batches."""
    model = api.model(api.ours.BatchNorm, X, 3, estimator=estimator)
    variables = model.variables
    for shift in range(3):
        _, statistics = model.apply(variables, X + shift, **training("BatchNorm"))
        variables = variables | {"batch_stats": statistics}
    return model, variables


@each_api
@each_estimator
def test_averaged_and_copied_variables_evaluate_and_train(api, estimator):
    model, variables = trained(api, estimator)
    y, _ = model.apply(variables, X, use_running_average=True)
    _, after = model.apply(variables, X, **training("BatchNorm"))
    for treatment in TREATMENTS.values():
        treated = treatment(variables, variables)
        again, _ = model.apply(treated, X, use_running_average=True)
        chex.assert_trees_all_close(again, y, rtol=1e-6)
        _, updated = model.apply(treated, X, **training("BatchNorm"))
        chex.assert_trees_all_close(updated, after, rtol=1e-6)


@each_api
@each_estimator
def test_variables_of_several_models_can_be_averaged(api, estimator):
    """The running statistics become the mean of theirs."""
    model, variables = trained(api, estimator)
    _, statistics = model.apply(variables, 3 * X, **training("BatchNorm"))
    later = variables | {"batch_stats": statistics}
    mixed = TREATMENTS["mean"](variables, later)
    expected, found = (
        [np.asarray(each["batch_stats"]["mean"][...]) for each in given]
        for given in ((variables, later), (mixed,))
    )
    np.testing.assert_allclose(found[0], np.mean(expected, 0), rtol=1e-6)
    y, statistics = model.apply(mixed, X, **training("BatchNorm"))
    chex.assert_tree_all_finite((y, statistics))


@each_api
@each_estimator
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_variables_may_be_cast(api, estimator, dtype):
    model, variables = trained(api, estimator)
    y, _ = model.apply(variables, X, use_running_average=True)
    cast = jax.tree.map(lambda each: each.astype(dtype), variables)
    again, _ = model.apply(cast, X, use_running_average=True)
    chex.assert_trees_all_close(again, y, atol=0.05)
    _, updated = model.apply(cast, X, **training("BatchNorm"))
    _, after = model.apply(variables, X, **training("BatchNorm"))
    assert {each.dtype for each in jax.tree.leaves(updated)} == {jnp.dtype(dtype)}
    chex.assert_trees_all_close(
        jax.tree.map(jnp.float32, updated), after, rtol=0.02, atol=0.02
    )


@each_api
@each_estimator
def test_gradients_of_all_variables_are_finite(api, estimator):
    model, variables = trained(api, estimator)

    def loss(variables, call):
        y, statistics = model.apply(variables, X, **call)
        return jnp.sum(jnp.sin(y)), statistics

    for call in ({"use_running_average": True}, training("BatchNorm")):
        gradients, _ = jax.grad(loss, has_aux=True)(variables, call)
        chex.assert_tree_all_finite(gradients)
        optimizer = optax.adam(0.1)
        updates, _ = optimizer.update(gradients, optimizer.init(variables), variables)
        stepped = optax.apply_updates(variables, updates)
        chex.assert_tree_all_finite(model.apply(stepped, X, **call))


@each_api
@each_estimator
def test_an_ensemble_trains_under_vmap(api, estimator):
    model, variables = trained(api, estimator)
    stacked = jax.tree.map(lambda each: jnp.stack([each, each]), variables)

    def step(variables, x):
        return model.apply(variables, x, **training("BatchNorm"))

    y, statistics = jax.vmap(step)(stacked, jnp.stack([X, 2 * X]))
    expected = [step(variables, x) for x in (X, 2 * X)]
    chex.assert_trees_all_close(
        (y, statistics),
        jax.tree.map(lambda *each: jnp.stack(each), *expected),
        rtol=1e-5,
        atol=1e-6,
    )


@each_api
def test_states_survive_a_checkpoint(api, tmp_path):
    states = {name: trained(api, each)[1] for name, each in ESTIMATORS.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", states)
    chex.assert_trees_all_equal(restored, states)
