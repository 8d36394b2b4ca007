"""Flax's wrappers that bridge its two APIs."""

import chex
import pytest
from flax import nnx
from flax.nnx import bridge

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.apis import KEY, NORMS, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)


def arguments(norm):
    return {"num_groups": 3} if norm == "GroupNorm" else {}


@pytest.mark.parametrize("norm", NORMS)
def test_a_linen_norm_works_as_an_nnx_module(norm):
    mode = {"train": True} if norm == "BatchNorm" else {}
    model = bridge.ToNNX(getattr(jn, norm)(**arguments(norm)), rngs=nnx.Rngs(0))
    model.lazy_init(X, **mode)
    y = model(X, mutable=["batch_stats"], **mode)
    native = getattr(jx, norm)(6, rngs=nnx.Rngs(0), **arguments(norm))
    chex.assert_trees_all_close(y, native(X), rtol=1e-6, atol=1e-6)
    if norm == "BatchNorm":
        assert isinstance(model.mean, nnx.BatchStat)
        chex.assert_trees_all_close(model.mean[...], native.mean[...], rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_an_nnx_norm_works_as_a_linen_module(norm):
    model = bridge.to_linen(getattr(jx, norm), 6, **arguments(norm))
    variables = model.init(KEY, X)
    y, updates = model.apply(variables, X, mutable=["batch_stats"])
    native = getattr(jx, norm)(6, rngs=nnx.Rngs(0), **arguments(norm))
    chex.assert_trees_all_close(y, native(X), rtol=1e-6, atol=1e-6)
    assert set(variables["params"]) == set(nnx.state(native, nnx.Param))
    if norm == "BatchNorm":
        mean = updates["batch_stats"]["mean"]
        chex.assert_trees_all_close(mean, native.mean[...], rtol=1e-6)
