"""How often devices wait for one another in compiled code: once forward, once backward."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnorm import (
    batch_norm,
    batch_renorm,
    ema,
    group_norm,
    instance_norm,
    layer_norm,
    measure,
    rms_norm,
)
from jaxnorm._core import moments
from tests.support.cases import cases, rows

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("several_devices")]
CASES = [
    case
    for case in cases(["float32"], ["none", "float"], few=True)
    if case.norm.own_moments and case.layout.cut is not None
]
FAST = [case for case in CASES if case.norm.name == "batch_norm-train"]
AXES = ("hosts", "devices")  # two of each


def collectives(function, *arrays):
    """Returns the instructions of the compiled program by which devices exchange arrays."""
    program = jax.jit(function).lower(*arrays).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    return re.findall(rf" ({kinds})(?:-start)?\(", program)


def mesh():
    return jax.make_mesh((2, 2), AXES, axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("case", rows(CASES, FAST), ids=str)
def test_a_sharded_norm_takes_one_forward_and_one_backward(case, check):
    cut = case.layout.cut
    shape = tuple(4 * n if i == cut else n for i, n in enumerate(case.shape))
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    weights = jnp.ones_like(x) if case.weighting == "float" else None
    _, scale, bias, _ = case.arrays()
    split, whole = PartitionSpec(*(None,) * cut, AXES), PartitionSpec()

    @functools.partial(
        jax.shard_map,
        mesh=mesh(),
        in_specs=(split, split, whole, whole),
        out_specs=split,
        check_vma=check,
    )
    def norm(x, weights, scale, bias):
        return case.apply(x, scale, bias, weights=weights, axis_name=AXES)

    def gradients(x, scale, bias, g):
        _, vjp = jax.vjp(
            lambda *arrays: norm(arrays[0], weights, *arrays[1:]), x, scale, bias
        )
        return vjp(g)

    assert len(collectives(norm, x, weights, scale, bias)) == 1
    # The gradients of scale and bias, summed over all shards, are in the same collective.
    assert len(collectives(gradients, x, scale, bias, x)) == 2


def test_statistics_come_with_the_same_one(rng):
    x = rng.normal(size=(16, 3)).astype(np.float32)
    whole = PartitionSpec()
    norm = jax.shard_map(
        lambda x, s: batch_norm(x, s, train=True, estimator=ema(0.99), axis_name=AXES),
        mesh=mesh(),
        in_specs=(PartitionSpec(AXES), whole),
        out_specs=(PartitionSpec(AXES), whole),
    )
    state = ema(0.99).init((3,))
    assert len(collectives(norm, x, state)) == 1
    expected = batch_norm(x, state, train=True, estimator=ema(0.99))
    chex.assert_trees_all_close(jax.jit(norm)(x, state), expected, rtol=1e-5, atol=1e-6)


def train(x, scale, bias, **options):
    state = ema(0.99).init(scale.shape)
    return batch_norm(x, state, scale, bias, train=True, estimator=ema(0.99), **options)[0]


def renorm(x, scale, bias, **options):
    limits = {"r_max": 1.5, "d_max": 0.5}
    state = ema(0.99).init(scale.shape)
    return batch_renorm(
        x, state, scale, bias, train=True, estimator=ema(0.99), **limits, **options
    )[0]


BATCH, BOTH_AXES = PartitionSpec(AXES), PartitionSpec(None, AXES)
ROWS, FEATURES = PartitionSpec(None, "hosts"), PartitionSpec(None, None, AXES)
groups = functools.partial(group_norm, num_groups=2)
# Norm, sharding of x of shape (8, 8, 8), number of collectives forward and in both passes.
SHARDED = {
    "batch": (train, BATCH, 1, 2),
    "batch, positions": (train, BOTH_AXES, 1, 2),
    "batch, ghosts": (functools.partial(train, ghost_size=2), BATCH, 0, 1),
    "renorm": (renorm, BATCH, 1, 2),
    "layer, features": (layer_norm, FEATURES, 1, 2),
    "layer, batch": (layer_norm, BATCH, 0, 1),
    "rms, features": (rms_norm, FEATURES, 1, 2),
    "group, positions": (groups, ROWS, 1, 2),
    "instance, positions": (instance_norm, BOTH_AXES, 1, 2),
    "instance, features": (instance_norm, FEATURES, 0, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
@pytest.mark.parametrize(("norm", "spec", "forward", "both"), SHARDED.values(), ids=SHARDED)
def test_jit_alone_exchanges_as_often(norm, spec, forward, both, kind, weighted, rng):
    """The compiler splits the sums into one message for sums and another for counts."""
    devices = jax.make_mesh((2, 2), AXES, axis_types=(kind,) * 2)
    place = functools.partial(NamedSharding, devices)
    x = jax.device_put(rng.normal(size=(8, 8, 8)).astype(np.float32), place(spec))
    along = PartitionSpec(*spec[2:])
    scale = jax.device_put(jnp.ones(8), place(along))
    weights = None
    if weighted:
        weights = jax.device_put(
            np.ones((8, 8, 1), np.float32), place(PartitionSpec(*spec[:2]))
        )

    def run(x, scale, bias, weights):
        return norm(x, scale, bias, weights=weights)

    def gradients(x, scale, bias, weights, g):
        y, vjp = jax.vjp(lambda *a: run(*a, weights), x, scale, bias)
        return y, vjp(g)

    with jax.set_mesh(devices):
        assert len(collectives(run, x, scale, scale, weights)) == forward
        assert len(collectives(gradients, x, scale, scale, weights, x)) == both


@pytest.mark.slow
def test_many_devices_merge_by_sums_of_a_fixed_size(rng):
    """With unequal counts and an empty part; parts mapped by vmap stand in for devices."""
    parts = 20
    x = (1e3 + rng.normal(size=(parts, 8, 3))).astype(np.float32)
    weights = (rng.random((parts, 8, 1)) < 0.6).astype(np.float32)
    weights[3] = 0

    def merged(x, w):
        return moments.synchronize(measure(x, 0, w), "parts")

    def whole(x, w):
        return measure(x.reshape(-1, 3), 0, w.reshape(-1, 1))

    def loss(function):
        return lambda x: jnp.sum(jnp.sin(function(x).mean)) + jnp.sum(function(x).var)

    mapped = jax.vmap(merged, axis_name="parts")
    found = jax.tree.map(lambda each: each[7], mapped(x, weights))
    expected = whole(x, weights)
    np.testing.assert_array_equal(found.count, expected.count)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    one = loss(lambda x: jax.tree.map(lambda each: each[7], mapped(x, weights)))
    chex.assert_trees_all_close(
        jax.grad(one)(x), jax.grad(loss(lambda x: whole(x, weights)))(x), atol=1e-5
    )
    constant = mapped(np.full_like(x, 1000.3), weights)
    np.testing.assert_allclose(constant.mean, np.float32(1000.3), rtol=1e-7)


def test_what_many_devices_send_does_not_grow_with_them(monkeypatch):
    monkeypatch.setattr(moments, "MANY_DEVICES", 4)
    norm = jax.shard_map(
        lambda x, s: batch_norm(x, s, train=True, estimator=ema(0.99), axis_name=AXES)[0],
        mesh=mesh(),
        in_specs=(PartitionSpec(AXES), PartitionSpec()),
        out_specs=PartitionSpec(AXES),
    )
    program = jax.jit(norm).lower(jnp.ones((16, 3)), ema(0.99).init((3,))).compile()
    sent = re.findall(r"f32\[([\d,]+)\]\S* all-reduce\(", program.as_text())
    assert [np.prod([int(n) for n in each.split(",")]) for each in sent] == [6, 6]
