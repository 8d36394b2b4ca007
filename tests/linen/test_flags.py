"""Training flags, given once or several times, in the constructor or the call."""

import chex
import jax.numpy as jnp
import pytest

import jaxnorm.linen as jn
from tests.modules.apis import KEY, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(6, 4, 3)


def test_train_may_be_said_at_construction_or_call_and_more_than_once():
    variables = jn.BatchNorm().init(KEY, X, train=False)
    ways = [
        (jn.BatchNorm(train=True), {}),
        (jn.BatchNorm(), {"train": True}),
        (jn.BatchNorm(use_running_average=False), {}),
        (jn.BatchNorm(), {"use_running_average": False}),
        (jn.BatchNorm(train=True), {"train": True, "use_running_average": False}),
    ]
    results = [m.apply(variables, X, mutable=["batch_stats"], **kw) for m, kw in ways]
    for each in results:
        chex.assert_trees_all_equal(each, results[0])


@pytest.mark.parametrize(
    ("module", "call"),
    [
        (jn.BatchNorm(), {}),
        (jn.BatchNorm(train=True), {"train": False}),
        (jn.BatchNorm(train=True), {"use_running_average": True}),
        (jn.BatchNorm(use_running_average=True), {"train": True}),
        (jn.BatchNorm(), {"train": True, "use_running_average": True}),
    ],
)
def test_neither_or_a_contradiction_says_what_to_write(module, call):
    variables = jn.BatchNorm().init(KEY, X, train=False)
    with pytest.raises(ValueError, match="write train=True to normalise with the batch"):
        module.apply(variables, X, **call)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("call", [{"train": "no"}, {"use_running_average": 1}])
def test_a_flag_that_is_no_bool_is_refused(call):
    variables = jn.BatchNorm().init(KEY, X, train=False)
    with pytest.raises(TypeError, match="True or False is expected"):
        jn.BatchNorm().apply(variables, X, **call)


def test_training_without_mutable_statistics_says_what_to_write():
    variables = jn.BatchNorm().init(KEY, X, train=False)
    with pytest.raises(ValueError, match=r"mutable=\['batch_stats'\]"):
        jn.BatchNorm(train=True).apply(variables, X)


@pytest.mark.parametrize("mutable", [False, ["batch_stats"]])
def test_evaluating_without_statistics_says_what_to_pass(mutable):
    variables = jn.BatchNorm().init(KEY, X, train=False)
    with pytest.raises(ValueError, match=r"'batch_stats': \.\.\."):
        jn.BatchNorm(train=False).apply({"params": variables["params"]}, X, mutable=mutable)


def test_initialising_updates_nothing():
    variables = jn.BatchNorm(train=True).init(KEY, X)
    chex.assert_trees_all_equal(
        variables["batch_stats"], {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    )
