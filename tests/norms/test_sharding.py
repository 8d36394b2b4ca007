"""Sharded arrays: on meshes with explicit axes, and in shard_map with shared operands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnorm import batch_norm, ema, group_norm, layer_norm
from tests.support.cases import NORMS as TABLE
from tests.support.cases import rows

SHAPE = (4, 2, 4, 8)
START = ema(0.9).init(SHAPE[-1:])


def batch(x, scale, bias, *, train=True, **options):
    return batch_norm(x, START, scale, bias, train=train, estimator=ema(0.99), **options)[0]


def conditional(x, scale, bias, **options):
    """Batch norm with a scale of each sample, that depends on it."""
    if scale is not None:
        scale = scale[None, None, None] * jnp.cos(x.sum((1, 2), keepdims=True))
    return batch(x, scale, bias, **options)


# The table, and ways to call its norms that have a layout of their own.
NORMS = {row.name: row.on_last_axis for row in TABLE} | {
    "ghosts": functools.partial(batch, ghost_size=2),
    "uneven ghosts": functools.partial(batch, ghost_size=3),
    "conditional": conditional,
    "layer of images": functools.partial(layer_norm, reduction_axes=(1, 2, 3)),
    "groups over devices": functools.partial(group_norm, num_groups=1),
}
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@pytest.fixture
def arrays(rng):
    """x, scale, bias and a cotangent of y."""
    sizes = (SHAPE, SHAPE[-1:], SHAPE[-1:], SHAPE)
    return [np.float32(rng.normal(1, 0.5, size)) for size in sizes]


def mesh(kind):
    return jax.make_mesh((2,), ("shards",), axis_types=(kind,))


def shard(local):
    """Maps a function over shards of x; other arguments are the same for all shards."""
    specs = {"in_specs": (P("shards"), P()), "out_specs": P("shards")}
    return jax.jit(jax.shard_map(local, mesh=mesh(AxisType.Auto), **specs))


@each_norm
@pytest.mark.parametrize(
    "axis", rows([0, 2, 3], [0]), ids=["batch", "positions", "features"]
)
def test_an_explicit_mesh_changes_nothing(norm, axis, arrays):
    """Neither output nor gradients; if features are sharded, so are the parameters.

    Meshes have explicit axes by default.
    """
    mask = np.arange(SHAPE[1])[:, None, None] < 1 if axis == 0 else None

    def both(x, scale, bias, g):
        weights = None if mask is None else jnp.asarray(mask)
        y, vjp = jax.vjp(functools.partial(norm, weights=weights), x, scale, bias)
        return y, vjp(g)

    expected = jax.jit(both)(*arrays)
    whole, parameters = P(*(None,) * axis, "shards"), P("shards") if axis == 3 else P()
    specs = (whole, parameters, parameters, whole)
    explicit = mesh(AxisType.Explicit)
    with jax.set_mesh(explicit):
        sharded = [
            jax.device_put(each, NamedSharding(explicit, spec))
            for each, spec in zip(arrays, specs, strict=True)
        ]
        jax.tree.map(close, jax.jit(both)(*sharded), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        pytest.param(norm, kind, id=f"{name}-{kind}")
        for kind in ("mask", "weights")
        for name, norm in NORMS.items()
        if kind == "mask" or name in ("batch_norm-train", "layer_norm", "uneven ghosts")
    ],
)
def test_shards_of_x_may_have_the_same_weights(norm, kind, arrays):
    """The count is then the same on all shards, but functions of x are not."""
    x, scale, bias, g = arrays
    weights = np.arange(4.0, dtype=np.float32)[:, None]
    weights = weights > 0 if kind == "mask" else weights

    def local(x, weights):
        return norm(x, jnp.asarray(scale), jnp.asarray(bias), weights=weights)

    sharded = shard(local)
    halves = [local(half, weights) for half in np.split(x, 2)]

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.vdot(g, sharded(x, jnp.asarray(weights))))(x)

    close(sharded(x, weights), np.concatenate(halves))
    parts = [
        jax.grad(lambda x, g=part: jnp.vdot(g, local(x, weights)))(half)
        for half, part in zip(np.split(x, 2), np.split(g, 2), strict=True)
    ]
    close(gradient(x), np.concatenate(parts))


@each_norm
def test_the_bias_alone_may_be_differentiated_in_a_shard(norm, arrays):
    """The moments may be merged over all shards, and so be known to be the same on each."""
    x, _, bias, g = arrays
    sharded = shard(lambda x, bias: norm(x, None, bias, axis_name="shards"))
    gradient, expected = (
        jax.jit(jax.grad(lambda bias, norm=each: jnp.vdot(g, norm(x, bias))))(bias)
        for each in (sharded, lambda x, bias: norm(x, None, bias))
    )
    close(gradient, expected)


@pytest.mark.slow
@each_norm
@pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
def test_a_sharded_program_is_exported(norm, kind, arrays):
    """For every platform; it is saved, loaded and called on the same number of devices."""
    pytest.importorskip("flatbuffers")

    def both(x, scale, bias, g):
        y, vjp = jax.vjp(norm, x, scale, bias)
        return y, vjp(g)

    devices = mesh(kind)
    with jax.set_mesh(devices):
        sharded = [
            jax.device_put(
                each, NamedSharding(devices, P("shards") if each.ndim > 1 else P())
            )
            for each in arrays
        ]
        program = export.export(jax.jit(both), platforms=("cpu", "cuda", "tpu"))(*sharded)
        loaded = export.deserialize(program.serialize())
        assert loaded.nr_devices == 2
        jax.tree.map(close, jax.jit(loaded.call)(*sharded), jax.jit(both)(*arrays))
