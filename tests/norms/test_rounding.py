"""Rounding of 16-bit outputs: bit for bit the same as in other libraries.

The reference computes in float64. Values so close to the midpoint of two bfloat16 values
that the error of float32 decides between them are excluded.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.nnx as jx
from jaxnorm import batch_norm, ema
from tests.support import oracle
from tests.support.cases import NORMS, Case, Layout

pytestmark = pytest.mark.optimized

BF16 = ml_dtypes.bfloat16
EPSILON = 1e-6


@pytest.fixture
def operands(rng):
    """x, scale and bias in bfloat16."""
    x = rng.normal(size=(64, 64)).astype(BF16)
    scale, bias = rng.normal((1, 0), 0.3, (64, 2)).astype(BF16).T
    return x, scale, bias


def normalized(x, *, centre):
    """(x − μ)/√(σ² + ε) in float64; without `centre`, μ is 0."""
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True) * centre
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON)


def assert_equal_but_for_ties(y, want, exact, size=None):
    """`want` is `exact` rounded; `size` is the size of the terms of `exact`."""
    off = 1e-6 * np.abs(exact if size is None else size)
    decided = (exact - off).astype(BF16) == (exact + off).astype(BF16)
    assert decided.mean() > 0.99
    assert np.asarray(y).dtype == BF16
    np.testing.assert_array_equal(np.asarray(y)[decided], want[decided])


@pytest.fixture(params=[False, True], ids=["one by one", "compiled"])
def run(request):
    """Also runs compiled, when XLA may leave out a rounding."""
    return jax.jit if request.param else lambda function: function


@pytest.mark.usefixtures("lenient")
def test_by_default_once_at_the_end_as_in_linen(operands):
    x, scale, bias = operands
    terms = normalized(x, centre=True) * scale.astype(float), bias.astype(float)
    exact, size = sum(terms), sum(map(np.abs, terms))
    flax = nn.LayerNorm(dtype=jnp.bfloat16)
    theirs = jax.jit(flax.apply)({"params": {"scale": scale, "bias": bias}}, x)
    for y in (jax.jit(jaxnorm.layer_norm)(x, scale, bias), theirs):
        assert_equal_but_for_ties(y, exact.astype(BF16), exact, size)


def test_twice_is_the_order_of_llama(operands, run):
    """Hugging Face's LlamaRMSNorm: weight * (x / rms).to(dtype)."""
    x, scale, _ = operands
    exact = normalized(x, centre=False)
    y = run(lambda *given: jaxnorm.rms_norm(*given, rounding="twice"))(x, scale)
    assert_equal_but_for_ties(y, exact.astype(BF16) * scale, exact)
    once = (exact * scale.astype(float)).astype(BF16)
    assert (np.asarray(y) != once).mean() > 0.1


def test_twice_rounds_after_the_scale_too(operands, run):
    x, scale, bias = operands
    exact = normalized(x, centre=True)
    y = run(lambda *given: jaxnorm.layer_norm(*given, rounding="twice"))(x, scale, bias)
    assert_equal_but_for_ties(y, exact.astype(BF16) * scale + bias, exact)


def test_one_and_the_scale_in_float32_is_the_order_of_gemma(operands):
    """(x / rms * (1 + weight.float())).to(dtype): 1 + weight is not rounded."""
    x, scale, _ = operands
    stored = scale - BF16(1)
    exact = normalized(x, centre=False) * (1 + stored.astype(float))
    norm = jax.jit(lambda x, stored: jaxnorm.rms_norm(x, 1 + stored.astype(jnp.float32)))
    assert_equal_but_for_ties(norm(x, stored), exact.astype(BF16), exact)


@pytest.mark.usefixtures("lenient")
def test_nnx_rounds_the_parameters_first(operands, rng):
    """Same as flax's promote_dtype; without it they are used as they are."""
    x, *_ = operands
    scale = rng.normal(1, 0.3, 64).astype(np.float32)
    values = normalized(x, centre=False)
    for options, used in (
        ({}, scale.astype(BF16)),
        ({"promote_dtype": lambda arrays, dtype: arrays}, scale),
    ):
        exact = values * used.astype(float)
        for norms in (nnx, jx):
            norm = norms.RMSNorm(64, dtype=jnp.bfloat16, rngs=nnx.Rngs(0), **options)
            norm.scale[...] = jnp.asarray(scale)
            assert_equal_but_for_ties(nnx.jit(norm)(x), exact.astype(BF16), exact)


@pytest.mark.peer
def test_torch_rounds_once(operands):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, scale, bias = operands
    given = [torch.tensor(each.astype(np.float32)).bfloat16() for each in operands]

    def numpy(y):
        return y.float().numpy().astype(BF16)

    exact = normalized(x, centre=False) * scale.astype(float)
    theirs = torch.nn.functional.rms_norm(given[0], (64,), given[1], EPSILON)
    for y in (numpy(theirs), jax.jit(jaxnorm.rms_norm)(x, scale)):
        assert_equal_but_for_ties(y, exact.astype(BF16), exact)

    terms = normalized(x, centre=True) * scale.astype(float), bias.astype(float)
    exact, size = sum(terms), sum(map(np.abs, terms))
    theirs = torch.nn.functional.layer_norm(given[0], (64,), *given[1:], EPSILON)
    for y in (numpy(theirs), jax.jit(jaxnorm.layer_norm)(x, scale, bias)):
        assert_equal_but_for_ties(y, exact.astype(BF16), exact, size)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_inner_rounding_is_one_that_no_compiler_may_leave_out(platform):
    """On a GPU, XLA may drop a cast to bfloat16 and back, as excess precision."""
    x, scale = jnp.ones((2, 8), jnp.bfloat16), jnp.ones(8, jnp.bfloat16)
    norm = jax.jit(functools.partial(jaxnorm.rms_norm, rounding="twice"))
    lowered = norm.trace(x, scale).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("stablehlo.reduce_precision") >= 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "norm",
    [each for each in NORMS if each.own_moments and each.exact_derivative],
    ids=lambda norm: norm.name,
)
def test_dx_is_rounded_once(rng, norm, dtype):
    """Also where the parts of dx through x and through the moments cancel."""
    case = Case(norm, Layout((8, 16, 32), -1), dtype, "none")
    x, scale, bias, _ = case.arrays()
    ones = np.ones(x.shape)
    normal = case.expect(x, jnp.ones_like(scale), jnp.zeros_like(bias), ones).y
    for g in (
        1 + 0.1 * rng.normal(size=x.shape),
        1 + normal + 0.01 * rng.normal(size=x.shape),
    ):
        g = jnp.asarray(g, dtype)
        (dx,) = jax.vjp(lambda x: case.apply(x, scale, bias), x)[1](g)
        expected, largest = (case.expect(x, scale, bias, g)[i] for i in (1, 4))
        once = jnp.asarray(expected, dtype)
        error, least = (
            np.sqrt(np.mean((np.asarray(each, np.float64) - expected) ** 2))
            for each in (dx, once)
        )
        # Float32 adds an error in proportion to the terms that cancel.
        assert error <= 1.05 * least + 2.0**-23 * largest


def test_no_part_of_dx_overflows_where_dx_does_not(rng):
    """As under loss scaling: γ·r·g exceeds float16, and most of it cancels."""
    x = jnp.asarray(rng.normal(size=(4096, 4)), jnp.float16)
    g = jnp.asarray(3e4 * (1 + 0.01 * rng.normal(size=x.shape)), jnp.float16)
    scale = 3 * jnp.ones(4)
    norm = functools.partial(
        batch_norm,
        statistics=ema(0.9).init((4,)),
        scale=scale,
        train=True,
        update=False,
    )
    (dx,) = jax.vjp(lambda x: norm(x)[0], x)[1](g)
    expected = oracle.norm_by_own_moments(
        x,
        scale,
        np.zeros(4),
        g,
        reduced=(0,),
        features=(1,),
        epsilon=1e-5,
        weights=None,
    ).dx
    np.testing.assert_allclose(
        np.asarray(dx, np.float64), expected, atol=2e-3 * np.abs(expected).max()
    )
