"""Every norm under every transformation of JAX."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import jet
from jax.sharding import PartitionSpec

import jaxnorm
from tests.support.cases import cases, pairs, rows

ALL_CASES = cases(["float32"], in_turn=True)
LAST_CASES = cases(["float32"], few=True)
# Each takes seconds to compile. Masks are computed like weights, without the products, and
# the norms of one sample differ only in their axes.
FAST_CASES = cases(["float32"], ["none"], few=True) + [
    case
    for case in cases(["float32"], ["float"], few=True)
    if case.norm.name in ("batch_norm-train", "layer_norm", "group_norm")
]
# These take ten seconds: one norm that couples a batch, and one of single samples.
FASTEST_CASES = [
    case
    for case in FAST_CASES
    if (case.norm.name, case.weighting)
    in (("batch_norm-train", "float"), ("layer_norm", "none"))
]
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", rows(ALL_CASES, FAST_CASES), ids=str)
def test_jit_equals_eager(case):
    arrays = case.arrays()[:3]
    close(jax.jit(case.apply)(*arrays), case.apply(*arrays))


@pytest.mark.parametrize("case", rows(ALL_CASES, FAST_CASES), ids=str)
def test_vmap_equals_a_loop(case):
    x, scale, bias, _ = case.arrays()
    xs = jnp.stack([x, 3 * x + 1])
    mapped = jax.jit(jax.vmap(case.apply, in_axes=(0, None, None)))(xs, scale, bias)
    close(mapped, jnp.stack([case.apply(each, scale, bias) for each in xs]))


@pytest.mark.parametrize("case", rows(ALL_CASES, LAST_CASES), ids=str)
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


def scalar(case, g):
    """Returns a loss that is not linear in the output, for x alone or for all three."""
    _, scale, bias, _ = case.arrays()

    def loss(x, scale=scale, bias=bias):
        return jnp.sum(g * jnp.sin(case.apply(x, scale, bias)))

    return loss


@pytest.mark.parametrize("case", rows(LAST_CASES, FASTEST_CASES), ids=str)
def test_all_ways_to_a_first_derivative_agree(case):
    x, *_, g = case.arrays()
    loss, dx = scalar(case, g), jnp.cos(x)

    @jax.jit
    def ways(x):
        linear = jax.linearize(loss, x)[1]
        gradient = jax.grad(loss)(x)
        return (
            (jax.jvp(loss, (x,), (dx,))[1], linear(dx), jnp.vdot(gradient, dx)),
            (
                jax.jacrev(loss)(x),
                jax.jacfwd(loss)(x),
                jax.linear_transpose(linear, x)(1.0)[0],
            ),
            (gradient, jax.grad(jax.checkpoint(loss))(x), jax.grad(jax.jit(loss))(x)),
        )

    for alike in ways(x):
        for each in alike[1:]:
            close(each, alike[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", rows(LAST_CASES, FASTEST_CASES), ids=str)
def test_all_ways_to_a_second_derivative_agree(case):
    x, *_, g = case.arrays()
    loss, dx = scalar(case, g), jnp.cos(x)

    @jax.jit
    def ways(x):
        hessian = jnp.tensordot(jax.hessian(loss)(x), dx, x.ndim)
        pushed = jax.jvp(jax.grad(loss), (x,), (dx,))[1]
        pulled = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), dx))(x)
        reversed_ = jax.grad(lambda x: jax.jvp(loss, (x,), (dx,))[1])(x)
        return hessian, pushed, pulled, reversed_

    first, *others = ways(x)
    for each in others:
        close(each, first, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(["float32"], ["float"], few=True), ids=str)
def test_vmap_commutes_with_derivatives(case):
    """Vmap of grad, of jvp and of a Hessian-vector product, and the derivative of vmap."""
    x, _, _, g = case.arrays()
    loss = scalar(case, g)
    xs = jnp.stack([x, 3 * x + 1])
    dxs = jnp.cos(xs)

    def derivatives(x, dx):
        return (
            jax.grad(loss)(x),
            jax.jvp(loss, (x,), (dx,))[1],
            jax.jvp(jax.grad(loss), (x,), (dx,))[1],
        )

    def mapped_loss(xs):
        return jnp.sum(jax.vmap(loss)(xs))

    @jax.jit
    def outside(xs, dxs):
        gradient = jax.grad(mapped_loss)
        pushed = jax.jvp(jax.vmap(loss), (xs,), (dxs,))[1]
        return gradient(xs), pushed, jax.jvp(gradient, (xs,), (dxs,))[1]

    inside = jax.jit(jax.vmap(derivatives))(xs, dxs)
    one = jax.jit(derivatives)
    looped = jax.tree.map(lambda *each: jnp.stack(each), *map(one, xs, dxs))
    for each in (inside, outside(xs, dxs)):
        jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-3), each, looped)


@pytest.mark.parametrize("case", rows(LAST_CASES, FAST_CASES), ids=str)
def test_arrays_may_be_donated(case):
    x, scale, bias, _ = case.arrays()
    expected = case.apply(x, scale, bias)
    donated = jax.jit(case.apply, donate_argnums=0)(x + 0, scale, bias)
    close(donated, expected)


@pytest.mark.parametrize("case", rows(LAST_CASES, FASTEST_CASES), ids=str)
def test_a_scan_over_layers_has_the_gradient_of_a_loop(case):
    x, scale, bias, g = case.arrays()
    scales, biases = jnp.stack([scale, 2 * scale]), jnp.stack([bias, -bias])

    def scanned(x, scales, biases):
        layer = jax.checkpoint(lambda x, p: (jnp.sin(case.apply(x, *p)), None))
        return jnp.vdot(g, jax.lax.scan(layer, x, (scales, biases))[0])

    def looped(x, scales, biases):
        for parameters in zip(scales, biases, strict=True):
            x = jnp.sin(case.apply(x, *parameters))
        return jnp.vdot(g, x)

    @jax.jit
    def both(*arguments):
        return [jax.grad(f, argnums=(0, 1, 2))(*arguments) for f in (scanned, looped)]

    scan, loop = both(x, scales, biases)
    jax.tree.map(functools.partial(close, rtol=1e-4, atol=1e-4), scan, loop)


@pytest.mark.parametrize(
    "case", cases(["float32", "bfloat16"], ["float"], few=True), ids=str
)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_devices_that_are_not_here(case, platform):
    x, scale, bias, g = case.arrays()

    def both(x, scale, bias, g):
        y, vjp = jax.vjp(case.apply, x, scale, bias)
        return y, vjp(g)

    lowered = jax.jit(both).trace(x, scale, bias, g).lower(lowering_platforms=(platform,))
    assert "stablehlo.reduce" in lowered.as_text() or not case.norm.own_moments


@pytest.mark.parametrize("case", rows(ALL_CASES, FAST_CASES), ids=str)
def test_scan_equals_a_loop(case):
    x, scale, bias, _ = case.arrays()

    @jax.jit
    def scanned(x):
        return jax.lax.scan(lambda x, _: (case.apply(x, scale, bias), None), x, length=3)[0]

    looped = x
    for _ in range(3):
        looped = case.apply(looped, scale, bias)
    close(scanned(x), looped)


@pytest.mark.parametrize("case", rows(ALL_CASES, FAST_CASES), ids=str)
def test_eval_shape_needs_no_data(case):
    x, scale, bias, _ = case.arrays()
    y = jax.eval_shape(case.apply, x, scale, bias)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def shards(case, number):
    """Makes a case `number` times as long, and gives its first shard no weight."""
    cut = case.layout.cut
    shape = tuple(n * number if i == cut else n for i, n in enumerate(case.shape))
    whole = dataclasses.replace(case, layout=dataclasses.replace(case.layout, shape=shape))
    place = np.arange(shape[cut]).reshape(
        [-1 if i == cut else 1 for i in range(len(shape))]
    )
    # Otherwise nothing would have weight if the first shard had it all.
    drawn = np.roll(np.asarray(whole.weights()), case.shape[cut], cut)
    weights = np.where(place < case.shape[cut], 0, drawn)
    return cut, whole, jnp.broadcast_to(weights, shape)


SHARDED = [
    case
    for case in cases(["float32"], ["float"])
    if case.norm.own_moments and case.layout.cut is not None
]


@pytest.mark.parametrize(
    ("case", "way"),
    pairs(
        [
            (case, way)
            for way in ("shard_map", "vmap", "pmap", "shard_map-unchecked")
            # An axis is mapped by `shard_map` in every layout.
            for case in SHARDED
            if way == "shard_map" or case.layout is case.norm.layouts[-1]
        ],
        [(case, "shard_map") for case in FAST_CASES],
    ),
)
def test_a_mapped_axis_equals_the_whole_batch(case, way):
    """With unequal counts and an empty shard, in forward and in reverse mode."""
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
        def ways(*arrays):
            tangents = tuple(map(jnp.cos, arrays))
            return jax.jvp(f, arrays, tangents), jax.vjp(f, *arrays)[1](g)

        return wrap(ways)(x, scale, bias)

    jax.tree.map(close, run(sharded), run(whole))


def test_nested_jvp_gives_what_jet_cannot():
    """Jet has no rule for jax.checkpoint; if that changes, the page should say so."""
    x, v = (jnp.asarray(each) for each in np.random.default_rng(0).normal(size=(2, 3, 5)))
    x, v = x.astype(jnp.float32), v.astype(jnp.float32)

    def along(t):
        return jaxnorm.layer_norm(x + t * v)

    with pytest.raises((KeyError, NotImplementedError)):
        jet.jet(along, (0.0,), ((1.0, 0.0),))

    def slope(t):
        return jax.jvp(along, (t,), (1.0,))[1]

    second = jax.jvp(slope, (0.0,), (1.0,))[1]
    with jax.enable_x64(True):
        fine = [
            np.asarray(jaxnorm.layer_norm(np.float64(x) + t * np.float64(v)))
            for t in (-1e-3, 0.0, 1e-3)
        ]
    expected = (fine[0] - 2 * fine[1] + fine[2]) / 1e-6
    np.testing.assert_allclose(second, expected, rtol=1e-3, atol=1e-3)
