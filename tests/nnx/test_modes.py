"""Training and evaluation, with flax's methods, flags and views."""

import chex
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from tests.modules.apis import normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 6)


def make(**arguments):
    return jx.BatchNorm(6, rngs=nnx.Rngs(0), **arguments)


def trains(model, **call):
    """Whether a call with these flags updates the statistics."""
    before = nnx.clone(model.mean)
    model(X, **call)
    return bool((model.mean[...] != before[...]).any())


def test_train_and_eval_set_the_mode_of_all_in_a_model():
    model = nnx.Sequential(make(), nnx.Sequential(make(use_running_average=True)))
    model.train()
    assert all(trains(each) for each in (model.layers[0], model.layers[1].layers[0]))
    model.eval()
    assert not any(trains(each) for each in (model.layers[0], model.layers[1].layers[0]))


@pytest.mark.parametrize("flags", [{"train": True}, {"use_running_average": False}])
def test_either_flag_trains_in_the_constructor_the_call_and_a_view(flags):
    assert trains(make(**flags))
    assert trains(make(use_running_average=True), **flags)
    assert trains(nnx.view(make(use_running_average=True), **flags))


@pytest.mark.parametrize("flags", [{"train": False}, {"use_running_average": True}])
def test_either_flag_evaluates_in_the_constructor_the_call_and_a_view(flags):
    assert not trains(make(**flags))
    assert not trains(make(), **flags)
    assert not trains(nnx.view(make(), **flags))


def test_a_view_shares_the_statistics():
    model = make(momentum=0.0)
    view = nnx.view(model, use_running_average=True)
    model(X)
    chex.assert_trees_all_close(view.mean[...], X.mean(0), rtol=1e-6)


def test_the_flags_of_a_view_are_told():
    info = nnx.view_info(make())
    assert "use_running_average: bool | None = None" in info
    assert "train: bool | None = None" in info


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ({"use_running_average": None}, {}),
        ({}, {"train": True, "use_running_average": True}),
    ],
)
def test_neither_or_a_contradiction_says_what_to_write(arguments, call):
    with pytest.raises(ValueError, match="write train=True to normalise with the batch"):
        make(**arguments)(X, **call)


def test_evaluating_uses_the_running_statistics():
    model = make(epsilon=0.0, train=False)
    model.mean[...], model.var[...] = jnp.full(6, 2.0), jnp.full(6, 4.0)
    chex.assert_trees_all_close(model(X), (X - 2) / 2, rtol=1e-6)


def test_flags_of_the_constructor_that_contradict_are_refused():
    """use_running_average=False is flax's default, so it is the same as no flag."""
    assert not jx.BatchNorm(3, train=True, rngs=nnx.Rngs(0)).use_running_average
    assert jx.BatchNorm(3, train=False, rngs=nnx.Rngs(0)).use_running_average
    with pytest.raises(ValueError, match="contradict each other"):
        jx.BatchNorm(3, use_running_average=True, train=True, rngs=nnx.Rngs(0))
