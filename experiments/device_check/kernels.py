"""The row kernels on this device; where none exists, the formula is checked instead."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.device_check.checks import ULP, Check, share, worst
from experiments.device_check.compiling import Compiled, Source
from jaxnorm import layer_norm, rms_norm
from tests.support import oracle

NORMS: dict[str, Callable[..., Any]] = {"layer_norm": layer_norm, "rms_norm": rms_norm}
SHAPES = ((4096, 4096), (1024, 768), (16, 256), (528, 8192))
DTYPES = ("float32", "bfloat16")
MEANS = (0.0, 10.0, 1e3)
MEANS_OF_16_BITS = (0.0, 10.0)
EPSILON = 1e-6


def kernels() -> list[Check]:
    """Checks gradients of every norm, shape and dtype against the documented bound."""
    return [
        _check(name, shape, dtype)
        for name, shape, dtype in itertools.product(NORMS, SHAPES, DTYPES)
    ]


def _check(name: str, shape: tuple[int, int], dtype: str) -> Check:
    norm = functools.partial(NORMS[name], implementation="kernel", epsilon=EPSILON)

    def function(x: Any, scale: Any, bias: Any, g: Any) -> tuple[Any, ...]:
        y, vjp = jax.vjp(norm, x, scale, bias)
        return y, *vjp(g)

    def judge(compiled: Compiled) -> dict[str, float]:
        means = MEANS if dtype == "float32" else MEANS_OF_16_BITS
        return worst(
            _shares(name, compiled(*arrays), arrays, mean)
            for mean in means
            for arrays in (_arrays(shape, dtype, mean),)
        )

    source = Source(function, _arrays(shape, dtype, 0.0))
    return Check(f"{name} {shape[0]}x{shape[1]} {dtype}", source, judge)


def _arrays(shape: tuple[int, int], dtype: str, mean: float) -> tuple[Any, ...]:
    """Returns x, with a standard deviation of 1, scale, bias and a cotangent."""
    rng = np.random.default_rng(0)
    x, g = (rng.normal(each, 1, shape) for each in (mean, 1.0))
    scale, bias = (rng.normal(size=shape[1:]).astype(np.float32) for _ in range(2))
    wide = (jnp.asarray(each, dtype) for each in (x, g))
    return next(wide), jnp.asarray(scale), jnp.asarray(bias), next(wide)


def _shares(name: str, found: Any, arrays: Any, mean: float) -> dict[str, float]:
    x, scale, bias, g = (np.asarray(each).astype(np.float64) for each in arrays)
    want = oracle.norm_by_own_moments(
        x,
        scale,
        bias,
        g,
        reduced=(1,),
        features=(1,),
        epsilon=EPSILON,
        weights=None,
        about_zero=name == "rms_norm",
    )
    _, dx, dscale, dbias = found
    half_an_ulp = 0.0
    if arrays[0].dtype != jnp.float32:
        half_an_ulp = 0.51 * float(jnp.finfo(arrays[0].dtype).eps)
    bound = 4 * ULP * (1 + abs(mean))
    total = np.abs(g).sum(0).max()
    largest = np.abs(scale).max() * np.abs(g).max()
    return {
        "dx": share(dx, want.dx, bound * largest + half_an_ulp * np.abs(want.dx)),
        "dgamma": share(dscale, want.dscale, bound * total),
        "dbeta": share(dbias, want.dbias, 4 * ULP * total),
    }
