"""The formulas of all platforms, on a CPU: for the table of cases and random layouts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm._core.measurement import Samples
from jaxnorm.norms._own_moments import normalize_and_measure, plan
from tests.support import oracle
from tests.support.cases import cases, rows

pytestmark = pytest.mark.optimized

ULP = 2.0**-23
CASES = [
    case
    for case in cases(["float32"], few=True) + cases(["bfloat16"], ["mask"], few=True)
    if case.norm.own_moments
]
# Each traces everything anew.
FAST = [
    case
    for case in cases(["float32"], ["float"], few=True)
    if case.norm.name in ("batch_norm-train", "layer_norm")
]


@pytest.mark.parametrize("of_platform", ["cuda", "tpu"], indirect=True)
@pytest.mark.parametrize("case", rows(CASES, FAST), ids=str)
def test_the_table_of_cases_holds(case, of_platform):
    """Outputs and gradients match the oracle to the precision of the dtype of x."""
    x, scale, bias, g = case.arrays()
    y, vjp = jax.vjp(case.apply, x, scale, bias)
    expected = case.expect(x, scale, bias, g)
    tolerance = 1e-5 if x.dtype == jnp.float32 else 2e-2
    for got, want in zip((y, *vjp(g)), expected[:4], strict=True):
        size = max(1, np.abs(want).max())
        got = np.asarray(got, np.float64)
        np.testing.assert_allclose(got, want, atol=tolerance * size, rtol=tolerance)


def two_values(n, rng, start, apart):
    return start + apart * rng.integers(0, 2, n)


def two_levels(n, rng, far):
    return np.where(far, 1e3, 0) + rng.normal(size=n)


# Kinds of n samples, some of them in the worst order for a formula.
KINDS = {
    "mean 0": lambda n, rng: rng.normal(size=n),
    "mean 1e3": lambda n, rng: 1e3 + rng.normal(size=n),
    "mean -1e5": lambda n, rng: -1e5 + rng.normal(size=n),
    "constant": lambda n, rng: np.full(n, rng.normal() * 10.0 ** rng.integers(-20, 20)),
    "largest": lambda n, rng: np.full(n, 3.1e38),
    "all but one": lambda n, rng: 1.7 + 1e-5 * (np.arange(n) == rng.integers(n)),
    "an ulp apart": lambda n, rng: two_values(n, rng, 1000.3, 2.0**-14),
    "some ulps apart": lambda n, rng: two_values(n, rng, 3.1e7, 4.0),
    "ends alike": lambda n, rng: np.where(
        np.isin(np.arange(n), (0, (n - 1) // 2, n - 1)), 1, two_values(n, rng, 1, 2e-7)
    ),
    "sorted": lambda n, rng: 100 + np.sort(rng.normal(size=n)),
    "first eighth far": lambda n, rng: two_levels(n, rng, np.arange(n) < -(-n // 8)),
    "last eighth far": lambda n, rng: two_levels(n, rng, np.arange(n) >= n - n // 8),
    "every eighth far": lambda n, rng: two_levels(n, rng, np.arange(n) % 8 == 0),
    "alternating": lambda n, rng: two_levels(n, rng, np.arange(n) % 2),
    "first far": lambda n, rng: np.where(np.arange(n) == 0, 1e4, rng.normal(size=n)),
    "tiny": lambda n, rng: 1e-12 * (1 + rng.normal(size=n)),
    "huge": lambda n, rng: 1e12 * (5 + rng.normal(size=n)),
    "heavy tails": lambda n, rng: np.clip(rng.standard_cauchy(n), -1e6, 1e6),
}
WEIGHTS = {
    "none": None,
    "ones": lambda shape, rng: np.ones(shape, np.float32),
    "mask": lambda shape, rng: rng.random(shape) < 0.7,
    "large": lambda shape, rng: np.float32(1e30) * rng.uniform(0.5, 1, shape),
    "small": lambda shape, rng: np.float32(1e-30) * rng.uniform(0.5, 1, shape),
}
LAYOUTS = 50  # 2,700 cases with all kinds of samples and platforms


class Drawn(NamedTuple):
    """A layout with an array of each kind, drawn with a number as seed."""

    axes: tuple[int, ...]
    weights: np.ndarray | None
    arrays: dict[str, np.ndarray]
    parameters: tuple[np.ndarray, np.ndarray]
    g: np.ndarray


def draw(number):
    rng = np.random.default_rng(number)
    shape, axes = (), ()
    while not (axes and 2 <= np.prod(shape) <= 2**17):
        shape = tuple(int(2 ** rng.uniform(0, 8)) for _ in range(rng.integers(1, 5)))
        axes = tuple(i for i in range(len(shape)) if rng.random() < 0.6)
    make = list(WEIGHTS.values())[number % len(WEIGHTS)]
    weights = None if make is None else make(shape, rng)
    if weights is not None and weights.dtype != bool:
        weights = weights.astype(np.float32)
    features = tuple(n for i, n in enumerate(shape) if i not in axes)
    return Drawn(
        axes,
        weights,
        {name: samples(shape, axes, kind, rng) for name, kind in KINDS.items()},
        tuple(rng.normal(size=features).astype(np.float32) for _ in range(2)),
        (1 + rng.normal(size=shape)).astype(np.float32),
    )


def samples(shape, axes, kind, rng):
    """Returns an array whose samples along the axes, in memory order, are of a kind."""
    order = (*(i for i in range(len(shape)) if i not in axes), *axes)
    n = int(np.prod([shape[i] for i in axes]))
    number = int(np.prod(shape)) // n
    few = np.stack([kind(n, rng) for _ in range(min(number, 4))])
    values = few[np.arange(number) % len(few)].reshape([shape[i] for i in order])
    return np.ascontiguousarray(values.transpose(np.argsort(order)), np.float32)


def program(shape, axes, weights):
    """Returns a compiled function from (x, scale, bias, g) to y, moments and gradients."""
    features = tuple(i for i in range(len(shape)) if i not in axes)
    how = plan(
        Samples(axes),
        features,
        epsilon=0.0,
        dtype=np.dtype(np.float32),
        rounding="once",
        axis_name=None,
        axis_index_groups=None,
    )

    @jax.jit
    def run(x, scale, bias, g):
        (y, moments), vjp = jax.vjp(
            lambda *a: normalize_and_measure(*a, weights, how), x, scale, bias
        )
        return y, moments, vjp((g, jax.tree.map(jnp.zeros_like, moments)))

    return run


@pytest.mark.parametrize("of_platform", ["default", "cuda", "tpu"], indirect=True)
@pytest.mark.parametrize("number", rows(range(LAYOUTS), (0, 6, 12, 21)))
def test_no_layout_breaks_the_bound(number, of_platform, request, record_property):
    drawn = draw(number)
    weights = None if drawn.weights is None else jnp.asarray(drawn.weights)
    run = program(drawn.g.shape, drawn.axes, weights)
    largest = {}
    for kind, x in drawn.arrays.items():
        found = ratios(drawn, x, run(x, *drawn.parameters, drawn.g))
        assert max(found.values()) <= 1, (kind, drawn.g.shape, drawn.axes, found)
        largest = {name: max(each, largest.get(name, 0)) for name, each in found.items()}
    platform = request.node.callspec.params["of_platform"]
    # `pytest_terminal_summary` prints the largest over all layouts.
    record_property("error over bound", (platform, len(drawn.arrays), largest))


def ratios(drawn, x, found):
    """Returns the largest ratios of errors to the bounds in docs/numerics.md."""
    y, (_, mean, var), (dx, dscale, dbias) = found
    axes, weights, g = drawn.axes, drawn.weights, drawn.g
    scale, bias = drawn.parameters
    features = tuple(i for i in range(x.ndim) if i not in axes)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = oracle.norm_by_own_moments(
            x, scale, bias, g, reduced=axes, features=features, epsilon=0, weights=weights
        )
        _, mu, var_exact = (e.squeeze(axes) for e in oracle.moments(x, axes, weights))
        sigma = np.sqrt(var_exact)
        bound = 4 * ULP * (1 + np.abs(mu) / sigma)
        limit = bound * sigma
    # The square of a smaller standard deviation is subnormal, and counts as 0.
    varies, constant = sigma > 1.1e-19, sigma == 0
    used = np.ones(x.shape, bool) if weights is None else weights > 0
    along = lambda vector: np.expand_dims(vector, axes)  # noqa: E731
    gamma, beta = along(scale), along(bias)
    normal = np.where(along(varies), np.abs(exact.y - beta) / np.abs(gamma), 0)
    tails = np.maximum(1, normal.max(axes))
    parts = (1, np.abs(gamma), np.abs(exact.y), np.abs(exact.y - beta))
    size = np.maximum.reduce(np.broadcast_arrays(*parts))
    total = np.abs(g).sum(axes)
    with np.errstate(divide="ignore"):
        largest = np.abs(scale) * np.abs(g).max(axes) * tails / sigma
    everywhere = np.ones_like(varies)
    return {
        "mean": worst(mean - mu, 4 * ULP * (np.abs(mu) + sigma) + 1e-38, everywhere),
        "deviation": worst(np.sqrt(np.float64(var)) - sigma, limit, varies),
        "variance of a constant": worst(var, 0, constant),
        "y": worst(y - exact.y, along(bound) * size, used & along(varies)),
        "y of a constant": worst(y - beta, 0, used & along(constant)),
        "dx": worst(dx - exact.dx, along(bound * largest), used & along(varies)),
        "dscale": worst(dscale - exact.dscale, bound * total * tails, varies),
        "dscale of a constant": worst(dscale, 0, constant),
        "dbias": worst(dbias - exact.dbias, 4 * ULP * total, everywhere),
    }


def worst(error, bound, where):
    """Returns the largest |error| / bound; infinite for an error where the bound is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.asarray(error) == 0, 0, np.abs(error) / bound)
        ratio = np.where(where, ratio, 0)
    return float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max(initial=0))
