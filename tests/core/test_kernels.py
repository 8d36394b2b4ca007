"""Kernels of rows agree with the formula and the oracle, however they are differentiated.

On a CPU, the TPU kernel is interpreted. The GPU kernel is only compiled; both kernels share
the computation for a row.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm import layer_norm, rms_norm
from jaxnorm._core.kernels import choosing, rows
from tests.support import cases, oracle

NORMS = {"layer": layer_norm, "rms": rms_norm}
each_norm = pytest.mark.parametrize(
    "norm", cases.rows(NORMS.values(), [layer_norm]), ids=NORMS
)
SHAPE = (48, 256)


@pytest.fixture
def calls(monkeypatch):
    """Counts how often the kernel is traced; interprets it, and treats 8 CPUs as one."""
    from jaxnorm._core.kernels import tpu

    traced = []

    def interpreted(*operands, **options):
        traced.append(operands[0].shape)
        return tpu.pull_back(*operands, **options, interpret=True)

    monkeypatch.setattr(rows, "kernels", lambda: {"default": interpreted})
    jax.clear_caches()
    yield traced
    jax.clear_caches()


def arrays(rng, shape=SHAPE, dtype=jnp.float32):
    """x, scale, bias and a cotangent of y."""
    x, g = (jnp.asarray(rng.normal(3, 2, shape), dtype) for _ in range(2))
    return x, *(jnp.asarray(rng.normal(size=shape[-1:]), "float32") for _ in range(2)), g


def pulled_back(norm, *operands):
    *primals, g = operands
    y, vjp = jax.vjp(norm, *primals)
    return y, *vjp(g)


def close(one, other, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def both(norm, **options):
    """Returns the norm computed by a kernel and by XLA."""
    return (
        functools.partial(norm, implementation=each, **options)
        for each in ("kernel", "xla")
    )


@each_norm
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [SHAPE, (2, 8, 512)])
def test_gradients_are_those_of_the_oracle(norm, dtype, shape, calls, rng):
    x, scale, bias, g = arrays(rng, shape, dtype)
    found = jax.jit(
        functools.partial(pulled_back, functools.partial(norm, implementation="kernel"))
    )(x, scale, bias, g)
    assert calls == [(x.size // shape[-1], shape[-1])]
    last = (x.ndim - 1,)
    exact = oracle.norm_by_own_moments(
        *map(np.float64, (x, scale, bias, g)),
        reduced=last,
        features=last,
        epsilon=1e-6,
        weights=None,
        about_zero=norm is rms_norm,
    )
    close(found[:2], exact[:2], 1e-5 if dtype == "float32" else 2e-2)
    close(found[2:], exact[2:4], 1e-5)


@pytest.mark.slow
@each_norm
def test_scale_and_bias_are_optional(norm, calls, rng):
    x, scale, bias, g = arrays(rng)
    kernel, xla = both(norm)
    for kept in ({}, {"scale": scale}, {"bias": bias}):
        one, other = (
            pulled_back(functools.partial(each, **kept), x, g) for each in (kernel, xla)
        )
        close(one, other)
    assert len(calls) == 2  # a missing scale is replaced by ones


@each_norm
def test_a_constant_has_no_gradient(norm, calls):
    x = jnp.full(SHAPE, 1000.3)
    scale, bias, g = jnp.ones(SHAPE[1:]), jnp.full(SHAPE[1:], 2.0), jnp.ones(SHAPE)
    kernel, xla = both(norm, epsilon=0.0)
    one, other = (pulled_back(each, x, scale, bias, g) for each in (kernel, xla))
    close(one, other)
    if norm is layer_norm:
        np.testing.assert_array_equal(one[0], 2)
        np.testing.assert_array_equal(one[1], 0)
        np.testing.assert_array_equal(one[2], 0)


@each_norm
def test_a_far_mean_costs_no_digits(norm, calls, rng):
    x, scale, bias, g = arrays(rng)
    x = x + 1e5
    exact = oracle.norm_by_own_moments(
        *map(np.float64, (x, scale, bias, g)),
        reduced=(1,),
        features=(1,),
        epsilon=1e-6,
        weights=None,
        about_zero=norm is rms_norm,
    )
    found = pulled_back(functools.partial(norm, implementation="kernel"), x, scale, bias, g)
    close(found[1], exact.dx, 1e-5)


WAYS = {
    "jvp": lambda f, x, s, b, g: jax.jvp(f, (x, s, b), (g, s, b)),
    "jvp of scale alone": lambda f, x, s, b, g: jax.jvp(lambda s: f(x, s, b), (s,), (s,)),
    "gradient of scale alone": lambda f, x, s, b, g: jax.grad(
        lambda s: jnp.sum(f(x, s, b) * g)
    )(s),
    "jacobian forward": lambda f, x, s, b, g: jax.jacfwd(
        lambda e: f(x + e * g, s, b).sum(1)
    )(1.0),
    "vmap": lambda f, x, s, b, g: jax.vmap(f, (0, None, None))(jnp.stack([x, g]), s, b),
    "gradient of vmap": lambda f, x, s, b, g: jax.grad(
        lambda x, s, b: jnp.sum(jnp.sin(jax.vmap(f, (0, None, None))(x, s, b))), (0, 1, 2)
    )(jnp.stack([x, g]), s, b),
    "vmap of gradient": lambda f, x, s, b, g: jax.vmap(
        lambda x: jax.grad(lambda x, s: jnp.sum(jnp.sin(f(x, s, b))), (0, 1))(x, s)
    )(jnp.stack([x, g])),
    "remat": lambda f, x, s, b, g: pulled_back(jax.checkpoint(f), x, s, b, g),
    "scan": lambda f, x, s, b, g: pulled_back(
        lambda x, s: jax.lax.scan(lambda x, s: (f(x, s, b), None), x, s)[0],
        x,
        jnp.stack([s, b]),
        g,
    ),
    "forward over reverse": lambda f, x, s, b, g: jax.jvp(
        jax.grad(lambda x: jnp.sum(jnp.sin(f(x, s, b)))), (x,), (g,)
    ),
    "reverse over reverse": lambda f, x, s, b, g: jax.grad(
        lambda x, s: jnp.sum(g * jax.grad(lambda x: jnp.sum(jnp.sin(f(x, s, b))))(x)),
        (0, 1),
    )(x, s),
    "reverse over forward": lambda f, x, s, b, g: jax.grad(
        lambda x: jnp.sum(jnp.sin(jax.jvp(lambda x: f(x, s, b), (x,), (g,))[1]))
    )(x),
    "linearize": lambda f, x, s, b, g: jax.linearize(lambda x: f(x, s, b), x)[1](g),
}


FAST = [WAYS[name] for name in ("jvp", "vmap of gradient", "reverse over reverse")]


@each_norm
@pytest.mark.parametrize("way", cases.rows(WAYS.values(), FAST), ids=WAYS)
def test_every_derivative_is_that_of_the_formula(norm, way, calls, rng):
    operands = arrays(rng)
    one, other = (jax.jit(functools.partial(way, each))(*operands) for each in both(norm))
    close(one, other)


MISFITS = {
    "features": ((48, 100), {}),
    "rows": ((47, 256), {}),
    "scale": (SHAPE, {"scale": np.ones((48, 1), np.float32)}),
    "weights": (SHAPE, {"weights": np.arange(48)[:, None] < 20}),
    "axis": ((256, 48), {"feature_axes": 0}),
    "reduced": ((4, 4, 256), {"reduction_axes": (1, 2)}),
    "dtype": (SHAPE, {"dtype": "float16"}),
}


@pytest.mark.slow
@each_norm
@pytest.mark.parametrize(("shape", "options"), MISFITS.values(), ids=MISFITS)
def test_where_it_does_not_fit_the_formula_is_taken(norm, shape, options, calls, rng):
    x, g = (jnp.asarray(rng.normal(size=shape), "float32") for _ in range(2))
    g = g.astype(options.get("dtype", "float32"))
    one, other = (pulled_back(each, x, g) for each in both(norm, **options))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert calls == []


@pytest.mark.slow
@each_norm
def test_sharded_arrays_are_left_to_the_compiler(norm, calls, monkeypatch, rng):
    monkeypatch.setattr(choosing, "has_several_devices", lambda platform: True)
    kernel, _ = both(norm)
    pulled_back(kernel, *arrays(rng))
    assert calls == []
    mesh = jax.make_mesh((2,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    parts, whole = jax.sharding.PartitionSpec("a"), jax.sharding.PartitionSpec()

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(parts, whole, whole, parts),
        out_specs=(parts, parts),
        check_vma=False,
    )
    def local(x, scale, bias, g):
        return pulled_back(kernel, x, scale, bias, g)[:2]

    x, scale, bias, g = arrays(rng, (64, 256))
    found = local(x, scale, bias, g)
    assert calls == [(32, 256)]
    close(found, pulled_back(norm, x, scale, bias, g)[:2])


@each_norm
def test_it_is_exported_for_every_platform(norm):
    """Each platform gets its own kernel, if any; the saved program runs here on a CPU."""
    x, scale, bias, g = arrays(np.random.default_rng(0))
    function = functools.partial(
        pulled_back, functools.partial(norm, implementation="kernel")
    )
    program = export.export(jax.jit(function), platforms=("cpu", "tpu"))(x, scale, bias, g)
    close(program.call(x, scale, bias, g), jax.jit(function)(x, scale, bias, g))


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_modules_have_the_argument(norm, calls, rng):
    x, *_ = arrays(rng)
    linen = getattr(jn, norm)(implementation="kernel")
    variables = linen.init(jax.random.key(0), x)
    jax.grad(lambda x: jnp.sum(jnp.sin(linen.apply(variables, x))))(x)
    assert calls == [SHAPE]
    jax.clear_caches()
    module = getattr(jx, norm)(256, implementation="kernel", rngs=nnx.Rngs(0))
    jax.grad(lambda x: jnp.sum(jnp.sin(module(x))))(x)
    assert calls == [SHAPE] * 2


@each_norm
@pytest.mark.usefixtures("unchecked")
def test_another_implementation_is_an_error(norm):
    with pytest.raises(ValueError, match="implementation='triton', but None or one"):
        norm(jnp.ones((2, 3)), implementation="triton")


def test_pallas_is_imported_where_it_is_needed():
    import subprocess
    import sys

    program = "import sys, jaxnorm; print('jax.experimental.pallas' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_a_gpu_gets_rows_that_fit_its_registers():
    assert choosing.holds("cuda", 4096)
    assert not choosing.holds("cuda", 4096 + choosing.FEATURES)
    assert choosing.holds("tpu", 8192)
    assert choosing.holds(None, 10**6)
