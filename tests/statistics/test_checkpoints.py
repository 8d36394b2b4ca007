"""Checkpoints of flax's norms load into ours and vice versa, with msgpack and orbax."""

from types import ModuleType

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization

import jaxnorm.linen as jn
import jaxnorm.nnx as jx

pytestmark = pytest.mark.usefixtures("lenient")

NORMS = {
    "BatchNorm": {"use_running_average": True},
    "LayerNorm": {},
    "RMSNorm": {},
    "GroupNorm": {"num_groups": 2},
    "InstanceNorm": {},
}
FEATURES = 4
X = np.float32(np.random.default_rng(0).normal(2, 3, (3, 5, FEATURES)))


class LinenModel(nn.Module):
    """All norms of a namespace, one after another."""

    norms: ModuleType

    @nn.compact
    def __call__(self, x):
        for name, arguments in NORMS.items():
            x = getattr(self.norms, name)(**arguments)(x)
        return x


class NnxModel(nnx.Module):
    """The same model in NNX."""

    def __init__(self, norms):
        for name, arguments in NORMS.items():
            norm = getattr(norms, name)(FEATURES, **arguments, rngs=nnx.Rngs(0))
            setattr(self, name, norm)

    def __call__(self, x):
        for name in NORMS:
            x = getattr(self, name)(x)
        return x


class Linen:
    """A Linen model, the shapes of its variables, and a function for its outputs."""

    def __init__(self, norms):
        self.model = LinenModel(norms)
        self.variables = jax.eval_shape(self.model.init, jax.random.key(0), X)
        self.outputs = jax.jit(self.model.apply)


class Nnx:
    """The same as `Linen`, for an NNX model."""

    def __init__(self, norms):
        self.graph, self.state = nnx.split(nnx.eval_shape(lambda: NnxModel(norms)))
        self.variables = nnx.to_pure_dict(self.state)
        self.outputs = jax.jit(self._outputs)

    def _outputs(self, variables, x):
        nnx.replace_by_pure_dict(self.state, variables)
        return nnx.merge(self.graph, self.state)(x)


def by_msgpack(saved, like, folder):
    file = folder / "checkpoint.msgpack"
    file.write_bytes(serialization.to_bytes(saved))
    return serialization.from_bytes(like, file.read_bytes())


def by_orbax(saved, like, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", saved)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", like)


@pytest.fixture(
    scope="module", params=[(Linen, nn, jn), (Nnx, nnx, jx)], ids=["linen", "nnx"]
)
def models(request):
    """Flax's model and ours, made once, because compiling takes most of the time."""
    framework, theirs, ours = request.param
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return framework(theirs), framework(ours)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's
@pytest.mark.parametrize("way", [1, -1], ids=["from flax", "to flax"])
@pytest.mark.parametrize("through", [by_msgpack, by_orbax])
def test_a_checkpoint_of_either_gives_the_other_the_same_outputs(
    models, way, through, rng, tmp_path
):
    source, target = models[::way]
    # All differ from their initial values, and variances are positive.
    saved = jax.tree.map(
        lambda each: np.float32(rng.uniform(0.5, 2, each.shape)), source.variables
    )
    loaded = through(saved, target.variables, tmp_path)
    assert jax.tree.structure(loaded) == jax.tree.structure(target.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)
    np.testing.assert_allclose(
        target.outputs(loaded, X), source.outputs(saved, X), rtol=1e-5, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_nnx_state_goes_through_orbax_with_its_types(tmp_path):
    """As in flax's guide: the variables with their types, not a plain dictionary."""
    theirs, ours = NnxModel(nnx), NnxModel(jx)
    theirs.BatchNorm.mean[...] = np.full(FEATURES, 3.0, np.float32)
    state = by_orbax(nnx.state(theirs), nnx.state(ours), tmp_path)
    nnx.update(ours, state)
    assert (ours.BatchNorm.mean[...] == 3).all()
    types = [
        {path: type(variable) for path, variable in nnx.to_flat_state(nnx.state(each))}
        for each in (theirs, ours)
    ]
    assert types[0] == types[1]
    assert types[0]["BatchNorm", "mean"] is nnx.BatchStat
