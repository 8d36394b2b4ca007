"""The norms' results on this device, compared with an oracle in float64."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.device_check.checks import ULP, Check, share, wide, worst
from experiments.device_check.compiling import Compiled, Source
from tests.support import oracle
from tests.support.cases import NORMS, TOLERANCE, WEIGHTINGS, Case, Norm, cases

MEANS = (0.0, 10.0, 1e3, 1e4, 1e6)
MEANS_OF_16_BITS = (0.0, 10.0, 100.0)  # 16-bit x can resolve its standard deviation here


def table() -> list[Check]:
    """The table of cases: every layout in float32, each norm's last one in 16 bits."""
    rows = cases(("float32",)) + cases(("bfloat16", "float16"), few=True)
    return [of_case(case) for case in rows]


def of_case(case: Case) -> Check:
    """Returns a row of the table, judged as in the tests of the contract and gradients."""
    arrays = case.arrays()

    def function(x: Any, scale: Any, bias: Any, g: Any) -> tuple[Any, ...]:
        y, vjp = jax.vjp(case.apply, x, scale, bias)
        return case.apply(x, scale, bias), y, *vjp(g)

    def judge(compiled: Compiled) -> dict[str, float]:
        alone, y, *gradients = compiled(*arrays)
        want = case.expected()
        allowed = TOLERANCE[case.dtype] * (1 + np.abs(want.y))
        found = {name: share(each, want.y, allowed) for name, each in _both(alone, y)}
        sizes = (
            TOLERANCE[case.dtype] * max(1, want.largest_term),
            *(2e-6 * max(5, np.abs(each).max()) for each in (want.dscale, want.dbias)),
        )
        return found | _gradients(gradients, want, sizes)

    return Check(str(case), Source(function, arrays), judge)


def _both(alone: Any, beside: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("y", alone), ("y with gradients", beside)


def _gradients(
    gradients: Sequence[Any], want: oracle.Oracle, allowed: Iterable[Any]
) -> dict[str, float]:
    names = ("dx", "dgamma", "dbeta")
    exact = (want.dx, want.dscale, want.dbias)
    return {
        name: share(got, right, size)
        for name, got, right, size in zip(names, gradients, exact, allowed, strict=True)
    }


def stable(norms: Sequence[Norm] = NORMS) -> list[Check]:
    """Long sums at means of up to 10⁶ standard deviations, held to the documented bound.

    Outputs are checked both alone and with gradients: a GPU computes them differently.
    """
    kinds = [("float32", each) for each in WEIGHTINGS]
    kinds += [("bfloat16", "none"), ("float16", "none")]
    return [
        Check(f"{case}, {name}", Source(function(case), case.arrays()), judge(case))
        for norm in norms
        for layout in (norm.long if norm.own_moments else ())
        for dtype, weighting in kinds
        for case in (Case(norm, layout, dtype, weighting),)
        for name, function, judge in (
            ("y", _alone, _judge_output),
            ("gradients", _with_gradients, _judge_gradients),
        )
    ]


def _alone(case: Case) -> Any:
    return lambda x, scale, bias, g: case.apply(x, scale, bias)


def _with_gradients(case: Case) -> Any:
    def function(x: Any, scale: Any, bias: Any, g: Any) -> tuple[Any, ...]:
        y, vjp = jax.vjp(case.apply, x, scale, bias)
        return y, *vjp(g)

    return function


def _judge_output(case: Case) -> Any:
    def judge(compiled: Compiled) -> dict[str, float]:
        return worst(
            {"y": _share_of_output(case, compiled(*arrays), case.expect(*arrays), *drawn)}
            for *drawn, arrays in _draws(case)
        )

    return judge


def _judge_gradients(case: Case) -> Any:
    def judge(compiled: Compiled) -> dict[str, float]:
        return worst(
            _shares_of_gradients(case, compiled(*arrays), *drawn, arrays=arrays)
            for *drawn, arrays in _draws(case, offsets=(0, 1))
        )

    return judge


def _draws(case: Case, offsets: tuple[int, ...] = (0,)) -> Any:
    """Yields bounds of y, standard deviations and arrays; cotangents about each offset."""
    normal, scale, bias, g = case.arrays()
    noise = (wide(normal) - 1) / 2
    for mean in MEANS if case.dtype == "float32" else MEANS_OF_16_BITS:
        deviation = 1.0 if case.dtype == "float32" else max(1.0, mean / 50)
        x = jnp.asarray(noise * deviation + mean, case.dtype)
        for offset in offsets:
            cotangent = jnp.asarray(offset + wide(g), case.dtype)
            bound = 4 * ULP * (1 + mean / deviation)
            yield bound, deviation, (x, scale, bias, cotangent)


def _share_of_output(
    case: Case, y: Any, want: oracle.Oracle, bound: float, deviation: float
) -> float:
    """Allows bound·max(1, |γ|, |y|, |y − β|), plus the rounding of y to its dtype."""
    del deviation
    _, scale, bias, _ = case.arrays()
    gamma, beta = (oracle.along(each, case.features, want.y.ndim) for each in (scale, bias))
    parts = (1, np.abs(gamma), np.abs(want.y), np.abs(want.y - beta))
    size = functools.reduce(np.maximum, parts)
    return share(y, want.y, bound * size + _rounding(case) * np.abs(want.y))


def _shares_of_gradients(
    case: Case, results: Sequence[Any], bound: float, deviation: float, *, arrays: Any
) -> dict[str, float]:
    """Allows the bound times the largest gradient that such cotangents can give."""
    want = case.expect(*arrays)
    y, *gradients = results
    scale, g = (np.abs(wide(each)) for each in (arrays[1], arrays[3]))
    largest = scale.max() * g.max() / deviation
    summed = g.sum(case.layout.others).max()
    allowed = (
        bound * largest + _rounding(case) * np.abs(want.dx),
        bound * summed,
        bound * summed,
    )
    found = {"y with gradients": _share_of_output(case, y, want, bound, deviation)}
    return found | _gradients(gradients, want, allowed)


def _rounding(case: Case) -> float:
    """Half an ulp of a 16-bit result; for float32 it is part of the bound."""
    return 0.0 if case.dtype == "float32" else 0.51 * float(jnp.finfo(case.dtype).eps)
