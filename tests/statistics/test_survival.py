"""Statistics survive what training involves: scans, rematerialisation, checkpoints."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm import batch_norm
from jaxnorm.statistics.state_names import named
from tests.support.estimators import ESTIMATORS, most_different_estimators

pytestmark = pytest.mark.usefixtures("lenient")


def norms(*by_default):
    """All estimators in batch norm, and the richest in batch renorm; most are slow."""
    rows = {name: ("BatchNorm", each) for name, each in ESTIMATORS.items()}
    rows["renorm"] = ("BatchRenorm", ESTIMATORS["richest"])
    marks = {name: () if name in by_default else pytest.mark.slow for name in rows}
    return pytest.mark.parametrize(
        ("norm", "estimator"),
        [pytest.param(*row, id=name, marks=marks[name]) for name, row in rows.items()],
    )


STEPS, SAVED, WIDTH, LAYERS = 8, 5, 4, 3  # saved between two batches of one update
KEY = jax.random.key(0)
X = 2 + 3 * jax.random.normal(KEY, (STEPS, 8, 3))
Y = jnp.sum(jnp.sin(X), -1, keepdims=True)
# A batch that is not finite changes neither statistics nor parameters.
OPTIMIZER = optax.apply_if_finite(optax.sgd(0.01, momentum=0.9), max_consecutive_errors=9)


def batches(estimator):
    """The batches; the second is not finite if the estimator guards against that."""
    guarded = "skipped" in named(estimator.init(()))
    return X.at[1, 0, 0].set(jnp.inf) if guarded else X


def options(norm, estimator):
    """The limits of renormalisation take effect, and change at every step."""
    limits = {"limits": lambda steps: (1 + 0.1 * steps, 0.1 * steps)}
    return {"estimator": estimator} | (limits if norm == "BatchRenorm" else {})


def loss(y, target):
    return jnp.mean((jnp.sum(y, -1, keepdims=True) - target) ** 2)


def assert_close(one, other):
    """Checks that floats are close and counters equal."""
    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


def through_orbax(state, like, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", like)


@most_different_estimators
def test_a_scan_over_steps_is_a_loop_of_steps(estimator):
    def step(state, x):
        y, state = batch_norm(x, state, train=True, estimator=estimator)
        evaluated, _ = batch_norm(X[0], state, train=False, estimator=estimator)
        return state, (y, evaluated)

    start, xs = estimator.init((3,)), batches(estimator)
    scanned = jax.jit(lambda start, xs: jax.lax.scan(step, start, xs))(start, xs)
    state, outputs, step = start, [], jax.jit(step)
    for x in xs:
        state, out = step(state, x)
        outputs.append(out)
    assert_close(scanned, (state, jax.tree.map(lambda *each: jnp.stack(each), *outputs)))
    chex.assert_tree_all_finite(state)
    means = [value for name, value in named(state).items() if name.endswith("mean")]
    assert any((mean != 0).all() for mean in means)


@most_different_estimators
def test_recomputing_for_the_backward_pass_updates_once(estimator):
    def train(x, state):
        return batch_norm(x, state, train=True, estimator=estimator)

    def gradients(train):
        def total(x):
            y, state = train(x, estimator.init((3,)))
            return jnp.sum(jnp.sin(y)), state

        return jax.jit(jax.grad(total, has_aux=True))(X[0])

    assert_close(gradients(jax.checkpoint(train)), gradients(train))


class Training(NamedTuple):
    """Training as functions of the whole state: parameters, statistics and optimiser.

    Attributes:
      init: `init() -> state`.
      step: `step(state, x, target) -> state`.
      scan: `scan(state, xs, targets) -> state`, all steps at once, with the model
        recomputed in the backward pass.
    """

    init: Callable[[], Any]
    step: Callable[..., Any]
    scan: Callable[..., Any]


class Stack(NamedTuple):
    """A stack of layers with one norm each, and different biases.

    Attributes:
      init: `init() -> state`, with the layers along the first axis.
      layer: `layer(state, x) -> (y, state)`, for one layer.
      scan: `scan(state, x) -> (y, state)`, for all layers in order, each recomputed.
    """

    init: Callable[[], Any]
    layer: Callable[..., Any]
    scan: Callable[..., Any]


class LinenModel(nn.Module):
    """A dense layer and a norm."""

    norm: partial

    @nn.compact
    def __call__(self, x):
        return self.norm(train=True)(nn.Dense(WIDTH)(x))


class LinenLayer(nn.Module):
    """A norm as `nn.scan` calls it."""

    norm: partial

    @nn.compact
    def __call__(self, x, _=None):
        return self.norm(train=True, bias_init=nn.initializers.normal(1.0))(x), None


def linen_training(norm, estimator):
    of_norm = partial(getattr(jn, norm), **options(norm, estimator))
    plain, recomputed = LinenModel(of_norm), nn.remat(LinenModel)(of_norm)

    def init():
        variables = plain.init(KEY, X[0])
        return dict(variables) | {"optimizer": OPTIMIZER.init(variables["params"])}

    def step(state, x, target, model=plain):
        def of(params):
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            y, updates = model.apply(variables, x, mutable=["batch_stats"])
            return loss(y, target), updates

        gradient, updates = jax.grad(of, has_aux=True)(state["params"])
        change, optimizer = OPTIMIZER.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], change)
        return {"params": params, "optimizer": optimizer} | updates

    def scan(state, xs, targets):
        def body(state, each):
            return step(state, *each, model=recomputed), None

        return jax.lax.scan(body, state, (xs, targets))[0]

    return Training(init, step, scan)


def linen_stack(norm, estimator):
    of_norm = partial(getattr(jn, norm), **options(norm, estimator))
    layers = nn.scan(
        nn.remat(LinenLayer),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=LAYERS,
    )

    def of(model, variables, x):
        (y, _), updates = model.apply(variables, x, None, mutable=["batch_stats"])
        return y, dict(variables) | updates

    return Stack(
        lambda: dict(layers(of_norm).init(KEY, X[0], None)),
        partial(of, LinenLayer(of_norm)),
        partial(of, layers(of_norm)),
    )


class NnxModel(nnx.Module):
    """The same model in NNX."""

    def __init__(self, norm, estimator):
        rngs = nnx.Rngs(0)
        self.dense = nnx.Linear(3, WIDTH, rngs=rngs)
        self.norm = getattr(jx, norm)(WIDTH, **options(norm, estimator), rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


class NnxTraining(nnx.Module):
    """A model and its optimiser."""

    def __init__(self, norm, estimator):
        self.model = NnxModel(norm, estimator)
        self.optimizer = nnx.Optimizer(self.model, OPTIMIZER, wrt=nnx.Param)

    def step(self, x, target, lift=lambda call: call):
        call = lift(lambda model, x: model(x))
        gradient = nnx.grad(lambda model: loss(call(model, x), target))(self.model)
        self.optimizer.update(self.model, gradient)


def nnx_training(norm, estimator):
    """The state is the one that `nnx.split` returns."""

    def make():
        return NnxTraining(norm, estimator)

    graph, _ = nnx.split(nnx.eval_shape(make))

    def step(state, x, target):
        training = nnx.merge(graph, state)
        training.step(x, target)
        return nnx.state(training)

    def scan(state, xs, targets):
        training = nnx.merge(graph, state)

        @nnx.scan(in_axes=(nnx.Carry, 0, 0), out_axes=nnx.Carry)
        def steps(training, x, target):
            training.step(x, target, lift=nnx.remat)
            return training

        return nnx.state(steps(training, xs, targets))

    return Training(lambda: nnx.state(make()), step, scan)


def nnx_stack(norm, estimator):
    def make(rngs):
        return getattr(jx, norm)(
            3, bias_init=nn.initializers.normal(1.0), rngs=rngs, **options(norm, estimator)
        )

    def init():
        layers = nnx.split_rngs(splits=LAYERS)(nnx.vmap(make))
        return nnx.state(layers(nnx.Rngs(0)))

    def of(call, state, x):
        model = nnx.merge(nnx.graphdef(make(nnx.Rngs(0))), state)
        return call(model, x), nnx.state(model)

    def call(model, x):
        return model(x)

    scan = nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(nnx.remat(call))
    return Stack(init, partial(of, call), partial(of, scan))


each_training = pytest.mark.parametrize(
    "training", [linen_training, nnx_training], ids=["linen", "nnx"]
)
each_stack = pytest.mark.parametrize(
    "stack", [linen_stack, nnx_stack], ids=["linen", "nnx"]
)


def run(training, state, estimator, start=0, stop=STEPS):
    step = jax.jit(training.step)
    for x, target in zip(batches(estimator)[start:stop], Y[start:stop], strict=True):
        state = step(state, x, target)
    return state


def counts(state, name):
    """The statistic with this name, in either API."""
    (found,) = (
        leaf
        for path, leaf in jax.tree.leaves_with_path(state)
        if f"{name!r}" in jax.tree_util.keystr(path)
    )
    return found.tolist()


@each_training
@norms("richest", "renorm")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's
def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(
    training, norm, estimator, tmp_path
):
    one, another = training(norm, estimator), training(norm, estimator)
    saved = run(one, one.init(), estimator, stop=SAVED)
    uninterrupted = run(one, saved, estimator, start=SAVED)

    like = jax.eval_shape(another.init)
    restored = through_orbax(saved, like, tmp_path)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, like)
    resumed = run(another, restored, estimator, start=SAVED)
    chex.assert_trees_all_equal(resumed, uninterrupted)
    chex.assert_tree_all_finite(resumed)
    if norm == "BatchRenorm":
        assert (counts(saved, "steps"), counts(resumed, "steps")) == (SAVED, STEPS)
    if estimator is ESTIMATORS["richest"]:  # it was saved while a batch was pending
        assert (counts(saved, "batches"), counts(resumed, "batches")) == (1, 0)
        assert counts(saved, "skipped") == 1


@each_training
@norms("renorm")
@pytest.mark.slow
def test_a_training_in_one_scan_with_its_model_recomputed_is_that_of_its_steps(
    training, norm, estimator
):
    it = training(norm, estimator)
    scanned = jax.jit(it.scan)(it.init(), batches(estimator), Y)
    assert_close(scanned, run(it, it.init(), estimator))
    if norm == "BatchRenorm":
        assert counts(scanned, "steps") == STEPS


@each_stack
@norms("renorm")
@pytest.mark.slow
def test_a_scan_over_layers_that_are_recomputed_is_a_loop_of_layers(stack, norm, estimator):
    it = stack(norm, estimator)

    def loop(state, x):
        after = []
        for i in range(LAYERS):
            x, updated = it.layer(jax.tree.map(lambda each, i=i: each[i], state), x)
            after.append(updated)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *after)

    def gradients(call):
        def total(x):
            y, state = call(it.init(), x)
            return jnp.sum(jnp.sin(y)), state

        return jax.jit(jax.grad(total, has_aux=True))(X[0])

    (gradient, scanned), (expected, looped) = gradients(it.scan), gradients(loop)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-4, atol=1e-5)
    assert_close(scanned, looped)
    if norm == "BatchRenorm":
        assert counts(scanned, "steps") == [1] * LAYERS
