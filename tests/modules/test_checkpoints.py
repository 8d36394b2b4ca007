"""State goes both ways between flax and jaxnorm, and the outputs with it."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx, serialization

from tests.modules.apis import KEY, LINEN, NNX, each_norm, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)


def trained(variables):
    """As training might leave them."""
    return jax.tree.map(lambda each: each + 0.3 + 0.1 * jnp.arange(6), variables)


def arguments(norm):
    return {"num_groups": 3} if norm == "GroupNorm" else {}


def evaluating(norm):
    return {"use_running_average": True} if norm == "BatchNorm" else {}


@each_norm
@pytest.mark.parametrize("back", [False, True], ids=["from flax", "to flax"])
def test_a_saved_checkpoint_of_linen_loads_on_the_other_side(norm, back):
    models = LINEN.pair(norm, X, **arguments(norm))
    source, target = models if back else models[::-1]
    variables = trained(source.variables)
    loaded = serialization.from_bytes(target.variables, serialization.to_bytes(variables))
    chex.assert_trees_all_equal(loaded, variables)
    y, _ = source.apply(variables, X, **evaluating(norm))
    again, _ = target.apply(loaded, X, **evaluating(norm))
    chex.assert_trees_all_close(again, y, rtol=1e-5, atol=1e-5)


@each_norm
@pytest.mark.parametrize("back", [False, True], ids=["from flax", "to flax"])
def test_the_state_of_an_nnx_norm_updates_one_of_the_other_side(norm, back):
    models = [
        getattr(each, norm)(6, rngs=nnx.Rngs(KEY), **arguments(norm))
        for each in (NNX.ours, NNX.theirs)
    ]
    source, target = models if back else models[::-1]
    nnx.update(source, trained(nnx.state(source)))
    nnx.update(target, nnx.state(source))
    chex.assert_trees_all_equal(nnx.state(target), nnx.state(source))
    call = evaluating(norm)
    chex.assert_trees_all_close(target(X, **call), source(X, **call), rtol=1e-5, atol=1e-5)
