"""How often devices wait for one another: once forward and once backward, as compiled."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnorm import batch_norm, ema, measure, moments
from tests.cases import cases, rows

pytestmark = pytest.mark.usefixtures("several_devices")
CASES = [
    case
    for case in cases(["float32"], ["none", "float"], few=True)
    if case.norm.own_moments and case.layout.cut is not None
]
FAST = [case for case in CASES if case.norm.name == "batch_norm-train"]
AXES = ("hosts", "devices")  # two of each


def collectives(function, *arrays):
    """The instructions by which devices exchange arrays, in the compiled program."""
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
    # Those of scale and bias, which all shards add to, are summed in the same one.
    assert len(collectives(gradients, x, scale, bias, x)) == 2


def test_statistics_come_with_the_same_one(rng):
    x = rng.normal(size=(16, 3)).astype(np.float32)
    whole = PartitionSpec()
    norm = jax.shard_map(
        lambda x, s: batch_norm(x, s, train=True, axis_name=AXES),
        mesh=mesh(),
        in_specs=(PartitionSpec(AXES), whole),
        out_specs=(PartitionSpec(AXES), whole),
    )
    state = ema(0.99).init((3,))
    assert len(collectives(norm, x, state)) == 1
    expected = batch_norm(x, state, train=True)
    chex.assert_trees_all_close(jax.jit(norm)(x, state), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_under_plain_jit_it_is_as_many(rng, weighted):
    """The compiler splits the sums, which are one message; their counts are another."""
    place = NamedSharding(mesh(), PartitionSpec(AXES))
    x = jax.device_put(rng.normal(size=(16, 5, 3)).astype(np.float32), place)
    weights = jax.device_put(jnp.ones((16, 1, 1)), place) if weighted else None
    state = ema(0.99).init((3,))
    norm = functools.partial(batch_norm, train=True)

    def gradients(x, w, scale, g):
        y, vjp = jax.vjp(lambda *a: norm(a[0], state, a[1], weights=w)[0], x, scale)
        return y, vjp(g)

    assert len(collectives(lambda x, w: norm(x, state, weights=w), x, weights)) == 1
    assert len(collectives(gradients, x, weights, jnp.ones(3), x)) == 2


def test_many_devices_merge_by_sums_of_a_fixed_size(rng):
    """Unequal counts and an empty one; what vmap maps is as good as devices."""
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
        lambda x, s: batch_norm(x, s, train=True, axis_name=AXES)[0],
        mesh=mesh(),
        in_specs=(PartitionSpec(AXES), PartitionSpec()),
        out_specs=PartitionSpec(AXES),
    )
    program = jax.jit(norm).lower(jnp.ones((16, 3)), ema(0.99).init((3,))).compile()
    sent = re.findall(r"f32\[([\d,]+)\]\S* all-reduce\(", program.as_text())
    assert [np.prod([int(n) for n in each.split(",")]) for each in sent] == [6, 6]
