"""The NNX norms agree with flax's under its transforms."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from tests.modules.apis import normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)


class Norms(nnx.Module):
    """All five norms side by side, without flax's fast variance, which can cancel."""

    def __init__(self, library, rngs):
        exact = {"use_fast_variance": False, "rngs": rngs}
        self.batch = library.BatchNorm(6, momentum=0.5, **exact)
        self.layer = library.LayerNorm(6, **exact)
        self.rms = library.RMSNorm(6, **exact)
        self.group = library.GroupNorm(6, 3, **exact)
        self.instance = library.InstanceNorm(6, **exact)

    def __call__(self, x):
        norms = (self.batch, self.layer, self.rms, self.group, self.instance)
        return sum(norm(x) for norm in norms)


def several(library):
    """Returns two of these models, their variables stacked along a new first axis."""

    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def make(rngs):
        return Norms(library, rngs)

    return make(nnx.Rngs(0))


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
@nnx.remat
def scanned(model, x):
    return model(x)


@nnx.vmap(in_axes=(0, None))
def mapped(model, x):
    return model(x)


@pytest.mark.parametrize("transformed", [scanned, mapped], ids=["scan of remat", "vmap"])
def test_does_under_a_transform_what_flax_does(transformed):
    @nnx.jit
    def gradient(model, x):
        return nnx.grad(lambda model, x: jnp.sum(jnp.sin(transformed(model, x))))(model, x)

    def results(library):
        model = several(library)
        initial = nnx.state(nnx.clone(model))
        return initial, gradient(model, X), nnx.state(model, nnx.BatchStat)

    ours, theirs = results(jx), results(nnx)
    chex.assert_trees_all_equal(ours[0], theirs[0])
    chex.assert_trees_all_close(ours[1:], theirs[1:], rtol=2e-4, atol=2e-4)
    assert (ours[2]["batch"]["mean"][...] != 0).all()


def test_a_mapped_axis_of_nnx_synchronises():
    model = jx.BatchNorm(6, axis_name="devices", rngs=nnx.Rngs(0))
    alone = jx.BatchNorm(6, rngs=nnx.Rngs(0))

    @nnx.vmap(in_axes=(None, 0), axis_name="devices")
    def call(model, x):
        return model(x)

    chex.assert_trees_all_close(call(model, X), alone(X), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(model.mean[...], alone.mean[...], rtol=1e-5)


def test_eval_shape_makes_the_variables_without_computing():
    shapes = nnx.eval_shape(lambda: Norms(jx, nnx.Rngs(0)))
    theirs = nnx.eval_shape(lambda: Norms(nnx, nnx.Rngs(0)))
    assert isinstance(shapes.batch.mean.get_value(), jax.ShapeDtypeStruct)
    assert jax.tree.structure(nnx.state(shapes)) == jax.tree.structure(nnx.state(theirs))
    chex.assert_trees_all_equal_shapes_and_dtypes(nnx.state(shapes), nnx.state(theirs))


def test_splitting_and_merging_gives_the_model_back():
    model = Norms(jx, nnx.Rngs(0))
    graph, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    assert set(statistics) == {"batch"}
    merged = nnx.merge(graph, params, statistics)
    chex.assert_trees_all_equal(merged(X), model(X))


def test_attributes_that_are_lists_work_under_jit():
    model = jx.LayerNorm(
        18,
        feature_axes=[1, 2],
        reduction_axes=[1, 2],
        axis_index_groups=None,
        rngs=nnx.Rngs(0),
    )
    y = nnx.jit(lambda model, x: model(x))(model, X)
    chex.assert_trees_all_close(y, model(X), rtol=1e-5, atol=1e-6)
    batch = jx.BatchNorm(18, axis=[1, 2], rngs=nnx.Rngs(0))
    assert nnx.jit(lambda model, x: model(x))(batch, X).shape == X.shape
