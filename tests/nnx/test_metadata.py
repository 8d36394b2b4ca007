"""Metadata of parameters: stored as in flax, and used to shard them across devices."""

import jax
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from tests.modules.apis import most_different_norms, normal

pytestmark = pytest.mark.usefixtures("lenient")


@pytest.fixture
def mesh():
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.usefixtures("mesh")
@most_different_norms
def test_metadata_and_partitioning_are_those_of_flax(norm):
    arguments = {"scale_metadata": {"out_sharding": ("model",), "tag": "γ"}}
    if norm != "RMSNorm":
        initializer = nnx.with_partitioning(nnx.initializers.zeros_init(), ("model",))
        arguments["bias_init"] = initializer
        arguments["bias_metadata"] = {"tag": "β"}
    if norm == "GroupNorm":
        arguments["num_groups"] = 2
    ours, theirs = (
        getattr(each, norm)(4, rngs=nnx.Rngs(0), **arguments) for each in (jx, nnx)
    )
    for name in ("scale", "bias"):
        mine, other = getattr(ours, name, None), getattr(theirs, name, None)
        if other is not None:
            assert mine.get_metadata() == other.get_metadata()
            assert mine[...].sharding == other[...].sharding
            assert mine[...].sharding.spec == jax.P("model")
    assert nnx.get_partition_spec(nnx.state(ours)) == nnx.get_partition_spec(
        nnx.state(theirs)
    )
    assert ours(normal(2, 3, 4)).shape == (2, 3, 4)
