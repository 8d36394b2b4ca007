"""Realistic models of flax, with its norms and with ours in their place."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.apis import normal

pytestmark = pytest.mark.usefixtures("lenient")
KEY = jax.random.key(0)
IMAGES, TOKENS = normal(4, 8, 8, 3), normal(2, 5, 8)


class ResidualBlock(nn.Module):
    """As in flax's ImageNet example."""

    filters: int
    norm: Any

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        y = nn.relu(self.norm()(conv(self.filters, (3, 3), (2, 2))(x)))
        y = self.norm(scale_init=nn.initializers.zeros_init())(
            conv(self.filters, (3, 3))(y)
        )
        shortcut = conv(self.filters, (1, 1), (2, 2), name="conv_proj")(x)
        return nn.relu(self.norm(name="norm_proj")(shortcut) + y)


class ResNet(nn.Module):
    """Batch norm, with the flag given to a partial in the call."""

    library: Any

    @nn.compact
    def __call__(self, x, train=True):
        norm = functools.partial(
            self.library.BatchNorm, use_running_average=not train, momentum=0.9
        )
        x = nn.relu(norm(name="bn_init")(nn.Conv(4, (3, 3), name="conv_init")(x)))
        for filters in (4, 8):
            x = ResidualBlock(filters, norm=norm)(x)
        return nn.Dense(5)(x.mean((1, 2)))


class UNet(nn.Module):
    """Group and instance norm, in 16 bits."""

    library: Any

    @nn.compact
    def __call__(self, x, train=True):
        down = nn.Conv(8, (3, 3), strides=2, dtype=jnp.bfloat16)(x)
        down = self.library.GroupNorm(num_groups=4, dtype=jnp.bfloat16)(down)
        up = nn.ConvTranspose(4, (2, 2), strides=(2, 2))(nn.swish(down))
        return self.library.InstanceNorm()(nn.Conv(4, (1, 1))(x) + up)


class Layer(nn.Module):
    """A pre-norm layer of a transformer, with names for the axes of parameters."""

    library: Any

    @nn.compact
    def __call__(self, x, _):
        norm = functools.partial(
            self.library.LayerNorm,
            scale_init=nn.with_partitioning(nn.initializers.ones_init(), ("embed",)),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        )
        x = x + nn.MultiHeadDotProductAttention(2)(norm()(x))
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(self.library.RMSNorm()(x)))), None


class Transformer(nn.Module):
    """Layers under remat and scan."""

    library: Any

    @nn.compact
    def __call__(self, x, train=True):
        layers = nn.scan(
            nn.remat(Layer, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers(self.library)(x, None)
        return self.library.LayerNorm(name="final")(x)


class Ensemble(nn.Module):
    """Members with statistics of their own, and a batch that is mapped."""

    library: Any

    @nn.compact
    def __call__(self, x, train=True):
        members = nn.vmap(
            self.library.BatchNorm,
            in_axes=None,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            axis_size=3,
        )
        return members(use_running_average=not train)(x)


MODELS = {
    "resnet": (ResNet, IMAGES),
    "unet": (UNet, IMAGES),
    "transformer": (Transformer, TOKENS),
    "ensemble": (Ensemble, TOKENS),
}
each_model = pytest.mark.parametrize("name", MODELS)


def close(one, other, tolerance=2e-4):
    """The trees agree, up to the largest of their values."""
    one, other = nn.meta.unbox((one, other))
    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = (np.asarray(each, np.float64) for each in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@each_model
def test_a_linen_model_starts_and_trains_as_with_flax(name):
    make, x = MODELS[name]
    found = []
    for library in (jn, nn):
        model = make(library)
        variables = jax.jit(model.init)(KEY, x)

        @jax.jit
        def run(variables, model=model):
            params = variables["params"]

            def loss(params):
                y, updates = model.apply(
                    variables | {"params": params}, x, mutable=["batch_stats"]
                )
                return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, updates)

            return jax.value_and_grad(loss, has_aux=True)(params)

        (_, (y, updates)), gradients = run(variables)
        evaluated = jax.jit(functools.partial(model.apply, train=False))(variables, x)
        found.append((variables, y, updates, gradients, evaluated))
    (ours, *results), (theirs, *expected) = found
    chex.assert_trees_all_equal(ours, theirs)  # the same keys, and the same boxes
    assert nn.get_partition_spec(ours) == nn.get_partition_spec(theirs)
    tolerance = 0.02 if name == "unet" else 2e-4
    for one, other in zip(results, expected, strict=True):
        close(one, other, tolerance)


@each_model
def test_a_linen_model_is_tabulated_as_with_flax(name):
    make, x = MODELS[name]
    tables = [
        nn.tabulate(make(library), KEY, console_kwargs={"width": 200})(x)
        for library in (jn, nn)
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_a_linen_model_crosses_the_bridge(name):
    make, x = MODELS[name]
    states = []
    for library in (jn, nn):
        model = nnx.bridge.ToNNX(make(library), rngs=nnx.Rngs(0)).lazy_init(x)
        y = model(x, mutable=["batch_stats"])
        states.append((y, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))))
    close(*states, 0.02 if name == "unet" else 2e-4)


class Block(nnx.Module):
    """Norms of all kinds, in NNX."""

    def __init__(self, library, *, rngs):
        self.dense = nnx.Linear(8, 8, rngs=rngs)
        self.batch = library.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.layer = library.LayerNorm(8, scale_metadata={"axis": "embed"}, rngs=rngs)
        self.group = library.GroupNorm(8, num_groups=2, rngs=rngs)
        self.rms = library.RMSNorm(8, rngs=rngs)
        self.instance = library.InstanceNorm(8, rngs=rngs)

    def __call__(self, x):
        x = x + self.rms(self.group(nnx.relu(self.batch(self.dense(x)))))
        return self.instance(self.layer(x))


def trained(library):
    """Stacked layers under scan and remat, an optimiser, and the modes."""

    @nnx.vmap(in_axes=(0,), out_axes=0)
    def stacked(rngs):
        return Block(library, rngs=rngs)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def through(block, x):
        return nnx.remat(Block.__call__)(block, x)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return jnp.sum(jnp.sin(through(model, TOKENS)))

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    model = stacked(nnx.Rngs(0).fork(split=2))
    optimizer = nnx.Optimizer(model, optax.sgd(0.05, momentum=0.9), wrt=nnx.Param)
    values = [step(model, optimizer) for _ in range(2)]
    model.eval()
    return values, through(model, TOKENS), nnx.to_pure_dict(nnx.state(model))


def test_an_nnx_model_trains_as_with_flax():
    close(trained(jx), trained(nnx), 1e-3)


def test_an_nnx_model_has_the_metadata_and_the_bridge_of_flax():
    states = [nnx.state(Block(each, rngs=nnx.Rngs(0))) for each in (jx, nnx)]
    chex.assert_trees_all_equal(*states)
    metadata = [
        {
            "/".join(map(str, path)): (type(each), each.get_metadata())
            for path, each in nnx.to_flat_state(state)
        }
        for state in states
    ]
    assert metadata[0] == metadata[1]
    x = TOKENS.reshape(-1, 8)
    results = []
    for library in (jx, nnx):
        model = nnx.bridge.ToLinen(library.BatchNorm, args=(8,))
        variables = model.init(KEY, x)
        results.append((variables, model.apply(variables, x, mutable=True)))
    close(*(jax.tree.leaves(each) for each in results))
