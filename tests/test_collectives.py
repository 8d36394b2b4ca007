"""How often devices wait for one another: once forward and once backward, as compiled."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnorm import batch_norm, ema
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
