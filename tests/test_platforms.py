"""The formulas of every platform, on a CPU: through the table of cases, and drawn layouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import layer_norm, variance
from jaxnorm.layouts import is_tidy
from jaxnorm.own_moments import normalize_and_measure, plan
from jaxnorm.measurement import Samples
from tests import oracle
from tests.cases import cases, rows

ULP = 2.0**-23
PLATFORMS = ("cuda", "tpu")
CASES = [
    case
    for case in cases(["float32", "bfloat16"], ["none", "mask", "float"], few=True)
    if case.norm.own_moments
]
# In the default run one of each formula; the slow run has all.
FAST = [case for case in CASES if case.norm.name in ("batch_norm-train", "layer_norm")]


@pytest.mark.parametrize("of_platform", PLATFORMS, indirect=True)
@pytest.mark.parametrize("case", rows(CASES, FAST), ids=str)
def test_the_table_of_cases_holds(case, of_platform):
    """Outputs and gradients are those of the oracle, to what the dtype of x can hold."""
    x, scale, bias, g = case.arrays()
    y, vjp = jax.vjp(case.apply, x, scale, bias)
    expected = case.expect(x, scale, bias, g)
    tolerance = 1e-5 if x.dtype == jnp.float32 else 2e-2
    for got, want in zip((y, *vjp(g)), expected[:4], strict=True):
        size = max(1, np.abs(want).max())
        np.testing.assert_allclose(
            np.asarray(got, np.float64), want, atol=tolerance * size, rtol=tolerance
        )


# Drawn layouts -----------------------------------------------------------------------------

KINDS = {
    "normal": lambda n, rng: rng.normal(size=n),
    "mean 10": lambda n, rng: 10 + rng.normal(size=n),
    "mean 1e3": lambda n, rng: 1e3 + rng.normal(size=n),
    "mean 1e5": lambda n, rng: -1e5 + rng.normal(size=n),
    "constant": lambda n, rng: np.full(n, rng.normal() * 10.0 ** rng.integers(-20, 20)),
    "largest": lambda n, rng: np.full(n, 3.1e38),
    "but one": lambda n, rng: np.where(np.arange(n) == rng.integers(n), 1.7 + 1e-5, 1.7),
    "one ulp": lambda n, rng: (
        1000.3 + rng.integers(0, 2, n) * np.spacing(np.float32(1000.3))
    ),
    "ulps": lambda n, rng: 3.1e7 + 2.0 * rng.integers(0, 3, n),
    "sorted": lambda n, rng: 100 + np.sort(rng.normal(size=n)),
    "far start": lambda n, rng: (
        np.where(np.arange(n) < max(1, n // 8), 1e3, 0) + rng.normal(size=n)
    ),
    "far end": lambda n, rng: (
        np.where(np.arange(n) >= n - max(1, n // 8), 1e3, 0) + rng.normal(size=n)
    ),
    "outlier": lambda n, rng: np.where(np.arange(n) == 0, 1e4, rng.normal(size=n)),
    "alternating": lambda n, rng: 1e3 * (-1.0) ** np.arange(n) + rng.normal(size=n),
    "alike ends": lambda n, rng: np.where(
        np.isin(np.arange(n), (0, (n - 1) // 2, n - 1)), 1.0, 1 + 1e-6 * rng.normal(size=n)
    ),
    "tiny": lambda n, rng: 1e-12 * (1 + rng.normal(size=n)),
    "huge": lambda n, rng: 1e12 * (5 + rng.normal(size=n)),
    "heavy tails": lambda n, rng: np.clip(rng.standard_cauchy(n), -1e6, 1e6),
}
WEIGHTS = ("none", "ones", "mask", "1e30", "1e-30")
LAYOUTS = 60  # with 18 kinds of data each


def draw(number):
    """A layout, and for each kind of data an array of it, from a number."""
    rng = np.random.default_rng(number)
    while True:
        rank = int(rng.integers(1, 5))
        shape = tuple(int(2 ** rng.uniform(0, 8)) for _ in range(rank))
        axes = tuple(i for i in range(rank) if rng.random() < 0.6)
        if axes and 2 <= np.prod(shape) <= 2**17 and np.prod([shape[i] for i in axes]) > 1:
            break
    weights = None
    name = WEIGHTS[number % len(WEIGHTS)]
    if name == "mask":
        weights = rng.random(shape) < 0.7
    elif name != "none":
        size = 1.0 if name == "ones" else float(name)
        weights = (size * rng.uniform(0.5, 1, shape)).astype(np.float32)
    return (
        shape,
        axes,
        weights,
        [samples(shape, axes, kind, rng) for kind in KINDS.values()],
    )


def samples(shape, axes, kind, rng):
    """An array whose samples along the axes, in the order of memory, are of a kind."""
    kept = [i for i in range(len(shape)) if i not in axes]
    order = (*kept, *axes)
    n = int(np.prod([shape[i] for i in axes]))
    m = int(np.prod([shape[i] for i in kept], dtype=int))
    values = np.stack([kind(n, rng) for _ in range(min(m, 4))])[np.arange(m) % min(m, 4)]
    moved = values.reshape([shape[i] for i in order]).transpose(np.argsort(order))
    return np.ascontiguousarray(moved, np.float32)


@functools.cache
def program(shape, axes, kind_of_weights, platform):
    """Output, moments and gradients by the formula of a platform."""
    how = plan(
        Samples(axes),
        tuple(range(len(shape)))
        if False
        else tuple(i for i in range(len(shape)) if i not in axes),
        epsilon=0.0,
        dtype=np.dtype(np.float32),
        rounding="once",
        axis_name=None,
        axis_index_groups=None,
    )

    @jax.jit
    def run(x, weights, scale, bias, g):
        (y, moments), vjp = jax.vjp(
            lambda *a: normalize_and_measure(a[0], a[1], a[2], weights, how), x, scale, bias
        )
        return y, moments, vjp((g, jax.tree.map(jnp.zeros_like, moments)))

    return run


@pytest.mark.parametrize("of_platform", ["default", *PLATFORMS], indirect=True)
@pytest.mark.parametrize("number", rows(range(LAYOUTS), range(0, 12, 3)))
def test_no_layout_breaks_the_bound(number, of_platform):
    shape, axes, weights, arrays = draw(number)
    run = program(shape, axes, weights is not None, of_platform)
    rng = np.random.default_rng(number)
    features = tuple(n for i, n in enumerate(shape) if i not in axes)
    scale, bias = (rng.normal(size=features).astype(np.float32) for _ in range(2))
    g = (1 + rng.normal(size=shape)).astype(np.float32)
    for kind, x in zip(KINDS, arrays, strict=True):
        worst = errors(x, weights, scale, bias, g, axes, run(x, weights, scale, bias, g))
        assert max(worst.values()) <= 1, (
            of_platform,
            kind,
            shape,
            axes,
            weights is None or weights.dtype,
            worst,
        )


def errors(x, weights, scale, bias, g, axes, found):
    """The largest errors over the bound that docs/numerics.md states."""
    y, (_, mean, var), (dx, dscale, dbias) = found
    features = tuple(i for i in range(x.ndim) if i not in axes)
    expected = oracle.norm_by_own_moments(
        x, scale, bias, g, reduced=axes, features=features, epsilon=1e-300, weights=weights
    )
    _, mu, sigma2 = (np.squeeze(e, axes) for e in oracle.moments(x, axes, weights))
    sigma = np.sqrt(sigma2)
    constant = sigma == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = 4 * ULP * (1 + np.abs(mu) / sigma)
    small = sigma < 1.1e-19  # its square is subnormal, and counts as 0
    worst = {}

    def check(name, error, size):
        size = np.where(size == 0, np.finfo(np.float64).tiny, size)
        ratio = np.where(np.isfinite(size), error / size, 0)
        worst[name] = float(np.nan_to_num(ratio, nan=np.inf).max(initial=0))

    check("mean", np.abs(mean - mu), np.maximum(4 * ULP * (np.abs(mu) + sigma), 1e-38))
    with np.errstate(invalid="ignore"):
        spread = np.where(small, 0, np.abs(np.sqrt(np.float64(var)) - sigma))
    check("deviation", spread, np.where(constant, 0, bound * sigma))
    used = np.broadcast_to(True if weights is None else weights > 0, x.shape)
    ok = used & ~np.expand_dims(small | constant, axes)
    gamma, beta, b = (np.expand_dims(e, axes) for e in (scale, bias, bound))
    size = np.maximum.reduce(
        np.broadcast_arrays(1, np.abs(gamma), np.abs(expected.y), np.abs(expected.y - beta))
    )
    check("y", np.where(ok, np.abs(y - expected.y), 0), b * size)
    flat = used & np.expand_dims(constant, axes)
    check("y of a constant", np.where(flat, np.abs(y - beta), 0), 0 * size)
    far = ~np.expand_dims(small | constant, axes)  # of samples without weight, too
    normal = np.where(far, np.abs(expected.y - beta) / np.maximum(np.abs(gamma), 1e-30), 0)
    tails = np.maximum(1, normal.max(axes))
    with np.errstate(divide="ignore"):
        largest = np.abs(scale) * np.abs(g).max(axes) * tails / sigma
    share = 1.0
    check(
        "dx",
        np.where(ok, np.abs(dx - expected.dx), 0),
        b * np.expand_dims(largest, axes) * share,
    )
    total = np.abs(g).sum(axes)
    check(
        "dscale",
        np.where(small | constant, 0, np.abs(dscale - expected.dscale)),
        bound * total * tails,
    )
    check("dscale of a constant", np.where(constant, np.abs(dscale), 0), 0 * total)
    check("dbias", np.abs(dbias - expected.dbias), 4 * ULP * total)
    return worst
