"""Every norm under every transformation of JAX."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.cases import cases

CASES = cases(["float32"])
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_jit_equals_eager(case):
    arrays = case.arrays()[:3]
    close(jax.jit(case.apply)(*arrays), case.apply(*arrays))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_equals_a_loop(case):
    x, scale, bias, _ = case.arrays()
    xs = jnp.stack([x, 3 * x + 1])
    mapped = jax.jit(jax.vmap(case.apply, in_axes=(0, None, None)))(xs, scale, bias)
    close(mapped, jnp.stack([case.apply(each, scale, bias) for each in xs]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_mode_is_the_transpose_of_reverse_mode(case):
    x, scale, bias, g = case.arrays()
    tangents = tuple(jnp.sin(each) for each in (x, scale, bias))

    @jax.jit
    def both(*arrays):
        _, forward = jax.jvp(case.apply, arrays, tangents)
        return forward, jax.vjp(case.apply, *arrays)[1](g)

    forward, reverse = both(x, scale, bias)
    paired = sum(jnp.vdot(a, b) for a, b in zip(reverse, tangents, strict=True))
    close(jnp.vdot(forward, g), paired, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_checkpoint_changes_no_gradient(case):
    x, scale, bias, g = case.arrays()

    @jax.jit
    def gradients(apply_twice):
        return jax.vjp(case.apply, x, scale, bias)[1](g * apply_twice)

    @jax.jit
    def rematerialised(apply_twice):
        return jax.vjp(jax.checkpoint(case.apply), x, scale, bias)[1](g * apply_twice)

    one = jnp.float32(1)
    jax.tree.map(close, rematerialised(one), gradients(one))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scan_equals_a_loop(case):
    x, scale, bias, _ = case.arrays()

    @jax.jit
    def scanned(x):
        return jax.lax.scan(lambda x, _: (case.apply(x, scale, bias), None), x, length=3)[0]

    looped = x
    for _ in range(3):
        looped = case.apply(looped, scale, bias)
    close(scanned(x), looped)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_eval_shape_needs_no_data(case):
    x, scale, bias, _ = case.arrays()
    y = jax.eval_shape(case.apply, x, scale, bias)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def shards(case, number):
    """Arrays of a case `number` times as long, of which the first shard has no weight."""
    cut = next(i for i in range(len(case.shape)) if i not in case.features)
    shape = tuple(n * number if i == cut else n for i, n in enumerate(case.shape))
    whole = dataclasses.replace(case, shape=shape)
    place = np.arange(shape[cut]).reshape(
        [-1 if i == cut else 1 for i in range(len(shape))]
    )
    weights = np.where(place < case.shape[cut], 0, np.asarray(whole.weights()))
    return cut, whole, jnp.broadcast_to(weights, shape)


COUPLED = [case for case in cases(["float32"], ["float"]) if case.norm.couples]


@pytest.mark.parametrize("case", COUPLED, ids=str)
@pytest.mark.parametrize("way", ["vmap", "pmap", "shard_map", "shard_map-unchecked"])
def test_a_mapped_axis_equals_the_whole_batch(case, way):
    """With unequal counts and an empty shard, forward and backward."""
    number = 4
    cut, case, weights = shards(case, number)
    x, scale, bias, g = case.arrays()

    def whole(x, scale, bias):
        return case.apply(x, scale, bias, weights=weights)

    def local(x, weights, scale, bias):
        return case.apply(x, scale, bias, weights=weights, axis_name="shards")

    if way.startswith("shard_map"):
        mesh = jax.make_mesh(
            (number,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        spec = PartitionSpec(*(None,) * cut, "shards")
        mapped = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(spec, spec, PartitionSpec(), PartitionSpec()),
            out_specs=spec,
            check_vma=way == "shard_map",
        )
    else:
        transform = {"vmap": jax.vmap, "pmap": jax.pmap}[way]

        def mapped(x, weights, scale, bias):
            split = [jnp.stack(jnp.split(each, number, cut)) for each in (x, weights)]
            y = transform(local, axis_name="shards", in_axes=(0, 0, None, None))(
                *split, scale, bias
            )
            return jnp.concatenate(list(y), cut)

    def sharded(x, scale, bias):
        return mapped(x, weights, scale, bias)

    wrap = (lambda f: f) if way == "pmap" else jax.jit

    def run(f):
        return wrap(lambda *a: (f(*a), jax.vjp(f, *a)[1](g)))(x, scale, bias)

    jax.tree.map(close, run(sharded), run(whole))
