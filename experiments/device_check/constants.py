"""Constants without ε: their variance is exactly 0, and y is the bias."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxnorm
from experiments.device_check.checks import ULP, Check, share
from experiments.device_check.compiling import Compiled, Source

CONSTANTS = {
    # A naive mean is off by ulps for some of these.
    "constants": (0.0, -0.1, 7.7, 1e6 + 0.3, 1e-20),
    # The squares of these overflow, and for some even the sum.
    "huge constants": (1e20, -2.1642801e32, 3e38, -3.3e38),
}


def constants() -> list[Check]:
    """Returns checks of batch, layer and instance norm on constants."""
    return [check for kind in CONSTANTS for check in _of_kind(kind)]


def _of_kind(kind: str) -> list[Check]:
    sizes = [(n, weighted) for n in (59, 4096) for weighted in (False, True)]
    found = [_columns(kind, n, weighted=weighted) for n, weighted in sizes]
    values = np.float32(CONSTANTS[kind])
    last = np.tile(values, (2, 59, 1))  # samples, positions, features
    norms: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
        "layer_norm": (jaxnorm.layer_norm, np.tile(values, (4096, 1)).T),
        "instance_norm, features last": (jaxnorm.instance_norm, last),
        "instance_norm, features first": (
            lambda x, **options: jaxnorm.instance_norm(x, feature_axes=1, **options),
            np.moveaxis(last, -1, 1),
        ),
    }
    return found + [_output(f"{name} of {kind}", *each) for name, each in norms.items()]


def _columns(kind: str, n: int, *, weighted: bool) -> Check:
    values = np.float32(CONSTANTS[kind])
    x = jnp.asarray(np.tile(values, (n, 1)))
    w = np.where(np.arange(n) % 3, 0.7, 1.1).astype(np.float32)[:, None]
    this = jaxnorm.ema(0.0)  # holds the statistics of the last batch

    def function(x: Any) -> Any:
        return jaxnorm.batch_norm(
            x,
            this.init(x.shape[-1:]),
            train=True,
            epsilon=0.0,
            estimator=this,
            weights=jnp.asarray(w) if weighted else None,
        )

    def judge(compiled: Compiled) -> dict[str, float]:
        y, statistics = compiled(x)
        mean = np.float64(values)
        return {
            "y": share(y, np.zeros(x.shape), 0),
            "mean": share(statistics.mean, mean, 2 * ULP * np.abs(mean) + 1e-38),
            "var": share(statistics.var, np.zeros(mean.shape), 0),
        }

    name = f"batch_norm of {kind}, {n}{' weighted' if weighted else ''}"
    return Check(name, Source(function, (x,)), judge)


def _output(name: str, norm: Callable[..., Any], array: np.ndarray) -> Check:
    x = jnp.asarray(array)

    def judge(compiled: Compiled) -> dict[str, float]:
        return {"y": share(compiled(x), np.zeros(x.shape), 0)}

    return Check(name, Source(lambda x: norm(x, epsilon=0.0), (x,)), judge)
