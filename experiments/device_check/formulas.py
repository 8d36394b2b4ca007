"""Each formula for mean and variance on its own, including those not used here."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.device_check.checks import ULP, Check, share, wide, worst
from experiments.device_check.compiling import Compiled, Source
from experiments.device_check.constants import CONSTANTS
from experiments.device_check.correctness import MEANS
from jaxnorm._core.variance import blocks, choice
from tests.support import oracle

ARRANGEMENTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "columns": ((4096, 64), (0,)),
    "images, features last": ((8, 16, 16, 32), (0, 1, 2)),
    "images, features first": ((8, 5, 16, 16), (0, 2, 3)),
    "positions": ((8, 256, 24), (1,)),
    "rows": ((64, 4096), (1,)),
}
PLATFORMS = {"gpu": "cuda", "tpu": "tpu", "cpu": "default"}
OF_ALL = ("two_passes", "within_a_kernel")  # without weights
OF_WEIGHTED = (
    "corrected_two_passes",
    "in_float64",
    "one_pass_in_float64",
    "one_pass_of_merges",
)


def formulas() -> list[Check]:
    """Returns checks of every formula in every arrangement it supports."""
    found = []
    for place, weighting in itertools.product(ARRANGEMENTS, ("none", "mask", "float")):
        shape, axes = ARRANGEMENTS[place]
        weights = _weights(weighting, shape, axes)
        used = _used(shape, axes, weights)
        for name in _names(shape, axes) if weights is None else OF_WEIGHTED:
            found.append(_check(name, place, weighting, weights, required=name in used))
    return found


def _names(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[str, ...]:
    in_blocks = blocks.blocks_of(jnp.zeros(shape), axes) is not None
    return (*OF_ALL, *("one_pass_in_blocks",) * in_blocks, *OF_WEIGHTED)


def _used(shape: tuple[int, ...], axes: tuple[int, ...], weights: Any) -> set[str]:
    """Returns the names of the formulas chosen on this platform."""
    platform = PLATFORMS[jax.default_backend()]
    return {
        choice.formulas_for(jnp.zeros(shape), weights, axes, purpose)[platform].__name__
        for purpose in ("output", "norm")
    }


def _weights(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    if kind == "none":
        return None
    drawn = np.random.default_rng(1).uniform(0.5, 2.0, shape)
    drawn *= np.random.default_rng(2).uniform(size=shape) < 0.7
    drawn[tuple(slice(1 if i in axes else None) for i in range(len(shape)))] = 1
    return jnp.asarray(drawn > 0 if kind == "mask" else drawn.astype(np.float32))


def _check(name: str, place: str, kind: str, weights: Any, *, required: bool) -> Check:
    shape, axes = ARRANGEMENTS[place]
    function = functools.partial(getattr(choice, name), axes=axes)

    def judge(compiled: Compiled) -> dict[str, float]:
        noise = np.random.default_rng(0).normal(size=shape)
        drawn = (jnp.asarray(noise + mean, jnp.float32) for mean in MEANS)
        shares = [_shares(compiled(x, weights), x, axes, weights) for x in drawn]
        for each in CONSTANTS:
            x = _constant(each, shape, axes)
            shares.append(_shares_of_constant(each, compiled(x, weights), x, axes))
        return worst(shares)

    source = Source(function, (jnp.zeros(shape), weights))
    return Check(f"{name}: {place}, weights {kind}", source, judge, required)


def _shares(found: Any, x: Any, axes: tuple[int, ...], weights: Any) -> dict[str, float]:
    """Allows errors that keep y within the documented bound."""
    n, mean, var = oracle.moments(wide(x), axes, weights)
    deviation = np.sqrt(var)
    ratio = np.abs(mean) / deviation
    known = wide(found.mean) + wide(found.rest)
    return {
        "count": share(found.count, n, 4 * ULP * n),
        "mean": share(known, mean, 4 * ULP * (np.abs(mean) + deviation)),
        "var": share(found.var, var, 8 * ULP * (1 + ratio) * var),
    }


def _constant(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    each = np.resize(np.float32(CONSTANTS[kind]), kept)
    return jnp.asarray(np.broadcast_to(each, shape))


def _shares_of_constant(
    kind: str, found: Any, x: Any, axes: tuple[int, ...]
) -> dict[str, float]:
    mean = wide(x).max(axes, keepdims=True)
    off = share(found.mean, mean, 2 * ULP * np.abs(mean) + 1e-38)
    return {kind: max(off, share(found.var, np.zeros(mean.shape), 0))}
