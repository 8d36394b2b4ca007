"""The one table of cases: norm × shape and axes × dtype × weights.

A new norm is one row of NORMS; the contract, gradient and transformation tests then go
through it without another line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm
from tests import oracle

EPSILON = 1e-3


@dataclass(frozen=True)
class Norm:
    """One norm.

    Attributes:
      name: for the test's id.
      apply: `apply(x, scale, bias, *, axis, features, weights, axis_name) -> y`, where
        features is the shape of the feature axes, for state of that shape.
      oracle: `oracle(x, scale, bias, g, *, features, weights) -> Oracle`, where features
        are the feature axes.
      couples: whether samples are normalised together, also along an axis of vmap.
    """

    name: str
    apply: Callable[..., Any]
    oracle: Callable[..., oracle.Oracle]
    couples: bool


def _features(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> tuple[int, ...]:
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(each % len(shape) for each in axes))


def _others(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(each for each in range(len(shape)) if each not in axes)


def _running(features: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Running statistics unlike those of any batch, the same on each call."""
    place = np.arange(np.prod(features, dtype=int)).reshape(features)
    return 0.5 * np.cos(place), 1.5 + np.sin(place)


def _batch_norm(x, scale, bias, *, features, **options):
    """The output of batch norm; its statistics have tests of their own."""
    wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    statistics = jaxnorm.Statistics(
        *(jnp.asarray(each, wide) for each in _running(features))
    )
    return jaxnorm.batch_norm(x, statistics, scale, bias, epsilon=EPSILON, **options)[0]


def _own_moments(x, scale, bias, g, *, features, weights, over):
    reduced = over(x.shape, features)
    return oracle.norm_by_own_moments(
        x,
        scale,
        bias,
        g,
        reduced=reduced,
        features=features,
        epsilon=EPSILON,
        weights=weights,
    )


def _running_moments(x, scale, bias, g, *, features, weights):
    mean, var = (
        oracle.along(each, features, x.ndim)
        for each in _running(tuple(x.shape[each] for each in features))
    )
    return oracle.norm_by_given_moments(
        x, scale, bias, g, mean=mean, var=var, features=features, epsilon=EPSILON
    )


NORMS = (
    Norm(
        "batch_norm-train",
        partial(_batch_norm, train=True),
        partial(_own_moments, over=_others),
        couples=True,
    ),
    Norm(
        "batch_norm-eval",
        partial(_batch_norm, train=False),
        _running_moments,
        couples=False,
    ),
)

LAYOUTS = (
    ((8, 3), -1),
    ((4, 5, 3), -1),
    ((4, 3, 2, 5), 1),
    ((6, 2, 4), (0, -1)),
)

# For tests that compile much: features between other axes, and features of two axes.
TWO_LAYOUTS = LAYOUTS[2:]

WEIGHTINGS = ("none", "mask", "float")


@dataclass(frozen=True)
class Case:
    """One row of the table, and the arrays it stands for."""

    norm: Norm
    shape: tuple[int, ...]
    axis: int | tuple[int, ...]
    dtype: str
    weighting: str

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.norm.name}-{shape}-axis{self.axis}-{self.dtype}-{self.weighting}"

    @property
    def features(self) -> tuple[int, ...]:
        return _features(self.shape, self.axis)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[each] for each in self.features)

    def arrays(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """x, scale and bias of the case, and a cotangent of the output."""
        rng = np.random.default_rng(0)
        wide = jnp.float64 if self.dtype == "float64" else jnp.float32
        x = jnp.asarray(rng.normal(1.0, 2.0, self.shape), self.dtype)
        scale, bias = (
            jnp.asarray(rng.normal(1.0, 0.5, self.parameter_shape), wide) for _ in range(2)
        )
        return x, scale, bias, jnp.asarray(rng.normal(size=self.shape), self.dtype)

    def weights(self) -> jax.Array | None:
        """Weights of size 1 along the features, some of them 0."""
        if self.weighting == "none":
            return None
        rng = np.random.default_rng(1)
        shape = [1 if i in self.features else n for i, n in enumerate(self.shape)]
        drawn = rng.uniform(0.5, 2.0, shape) * (rng.uniform(size=shape) < 0.7)
        drawn[tuple(slice(0, 1) for _ in shape)] = 1.0  # never all 0
        return jnp.asarray(
            drawn > 0 if self.weighting == "mask" else drawn.astype(np.float32)
        )

    def apply(self, x, scale, bias, *, weights="own", axis_name=None):
        return self.norm.apply(
            x,
            scale,
            bias,
            axis=self.axis,
            features=self.parameter_shape,
            weights=self.weights() if isinstance(weights, str) else weights,
            axis_name=axis_name,
        )

    def expected(self) -> oracle.Oracle:
        weights = self.weights()
        arrays = (np.asarray(each).astype(np.float64) for each in self.arrays())
        weights = None if weights is None else np.asarray(weights)
        return self.norm.oracle(*arrays, features=self.features, weights=weights)


def cases(
    dtypes=("float32", "bfloat16", "float16", "float64"),
    weightings=WEIGHTINGS,
    layouts=LAYOUTS,
):
    """The rows of the table with these dtypes, weights and layouts."""
    return [
        Case(norm, shape, axis, dtype, weighting)
        for norm in NORMS
        for shape, axis in layouts
        for dtype in dtypes
        for weighting in weightings
    ]


# The rounding of an output of size about 1, times a few operations.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
