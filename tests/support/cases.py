"""The one table of cases: norm × layout × dtype × weights.

A new norm is one row of NORMS; the contract, gradient and transformation tests then go
through it without another line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm
from tests.support import oracle

EPSILON = 1e-3


@dataclass(frozen=True)
class Layout:
    """A shape of x and which of its axes are what.

    Attributes:
      shape: of x.
      axis: the feature axes.
      reduced: those the moments are taken over, where the norm is told; None is its own
        choice.
      cut: an axis along which x may be sharded, the moments being taken over it, and the
        parameters the same on all shards; None is none. The last layout has one.
      conditional: axes besides the features along which scale and bias vary.
    """

    shape: tuple[int, ...]
    axis: int | tuple[int, ...]
    reduced: tuple[int, ...] | None = None
    cut: int | None = None
    conditional: tuple[int, ...] = ()

    @property
    def features(self) -> tuple[int, ...]:
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        return tuple(sorted(each % len(self.shape) for each in axes))

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[each] for each in self.features)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        if not self.conditional:
            return self.feature_shape
        varies = (*self.conditional, *self.features)
        return tuple(n if i in varies else 1 for i, n in enumerate(self.shape))

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(each for each in range(len(self.shape)) if each not in self.features)

    def __str__(self) -> str:
        over = "" if self.reduced is None else f"-over{self.reduced}"
        by = f"-by{self.conditional}" if self.conditional else ""
        return f"{'x'.join(map(str, self.shape))}-axis{self.axis}{over}{by}"


@dataclass(frozen=True, eq=False)
class Norm:
    """One norm.

    Attributes:
      name: for the test's id.
      function: the public function.
      options: its arguments besides the operands, the axes and the statistics.
      parameters: values of parameters besides scale and bias, by their names.
      oracle: `oracle(x, scale, bias, g, *, layout, reduced, weights) -> Oracle`.
      over: `over(layout)`, the axes along which all that has weight has one mean, besides
        the features of a group.
      layouts: those it is tested in; tests that compile much take the last ones.
      long: layouts whose sums are long enough to lose digits.
      large: a layout beside which the moments, and arrays of their shape, are small.
      module: the name of its class in both APIs.
      arguments: of the class, besides the axes.
      mode: arguments of the call that say how it normalises.
      alone: whether each sample is normalised by itself, without any state.
      centred: whether the mean is subtracted.
      own_moments: whether it normalises x by moments of x.
      weighted_features: whether weights may differ between features.
      exact_derivative: whether its derivative is that of its output, and not one that
        takes something for constant.
      finish: what is done to the output at the end, in NumPy.
    """

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    oracle: Callable[..., oracle.Oracle]
    over: Callable[[Layout], tuple[int, ...]]
    layouts: tuple[Layout, ...]
    long: tuple[Layout, ...]
    large: Layout
    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mode: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    alone: bool = False
    centred: bool = True
    own_moments: bool = True
    weighted_features: bool = True
    exact_derivative: bool = True
    finish: Callable[[np.ndarray], np.ndarray] = np.asarray

    def apply(self, x, scale=None, bias=None, *, features, **others):
        """Returns the output; the running statistics, if any, have the shape `features`."""
        given = {"epsilon": EPSILON, **self.options, **self.parameters, **others}
        if self.alone:
            return self.function(x, scale, bias, **given)
        wide = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
        running = (jnp.asarray(each, wide) for each in _running(features))
        return self.function(x, jaxnorm.Statistics(*running), scale, bias, **given)[0]

    def on_last_axis(self, x, scale=None, bias=None, **others):
        """The same of an x whose features are on the last axis."""
        return self.apply(x, scale, bias, features=x.shape[-1:], **others)


def _running(features: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Running statistics unlike those of any batch, the same on each call."""
    place = np.arange(np.prod(features, dtype=int)).reshape(features)
    return 0.5 * np.cos(place), 1.5 + np.sin(place)


def _own_moments(x, scale, bias, g, *, layout, reduced, weights, **options):
    return oracle.norm_by_own_moments(
        x,
        scale,
        bias,
        g,
        reduced=reduced,
        features=layout.features,
        epsilon=EPSILON,
        weights=weights,
        **options,
    )


def _running_moments(x, scale, bias, g, *, layout, reduced, weights):
    mean, var = (
        oracle.along(each, layout.features, x.ndim)
        for each in _running(layout.feature_shape)
    )
    return oracle.norm_by_given_moments(
        x, scale, bias, g, mean=mean, var=var, features=layout.features, epsilon=EPSILON
    )


def _renormalized(x, scale, bias, g, *, layout, reduced, weights, **limits):
    mean, var = _running(layout.feature_shape)
    return oracle.batch_renorm(
        x,
        scale,
        bias,
        g,
        mean=mean,
        var=var,
        reduced=reduced,
        features=layout.features,
        epsilon=EPSILON,
        weights=weights,
        **limits,
    )


def _grouped(x, scale, bias, g, *, layout, reduced, weights, groups):
    return oracle.group_norm(
        x,
        scale,
        bias,
        g,
        reduced=reduced,
        features=layout.features,
        groups=groups,
        epsilon=EPSILON,
        weights=weights,
    )


def _filter_response(x, scale, bias, g, *, layout, reduced, weights):
    return oracle.filter_response_norm(
        x,
        scale,
        bias,
        g,
        **RESPONSE,
        reduced=reduced,
        features=layout.features,
        epsilon=EPSILON,
        weights=weights,
    )


def _batch(layout: Layout) -> tuple[int, ...]:
    return layout.others


def _sample(layout: Layout) -> tuple[int, ...]:
    return layout.features if layout.reduced is None else layout.reduced


def _positions(layout: Layout) -> tuple[int, ...]:
    inner = tuple(each for each in layout.others if each)
    return inner if layout.reduced is None else layout.reduced


BATCHES = (
    Layout((8, 3), -1, cut=0),
    Layout((4, 5, 3), -1, cut=0),
    Layout((4, 5, 3), -1, conditional=(0,)),
    Layout((6, 2, 4), (0, -1), cut=1),
    Layout((4, 3, 2, 5), 1, cut=0),
)
SAMPLES = (
    Layout((8, 3), -1),
    Layout((4, 5, 3), -1, conditional=(0,)),
    Layout((6, 2, 4), (0, -1)),
    Layout((3, 5, 2, 4), 1, reduced=(1, 2, 3), cut=2),
)
IMAGES = (
    Layout((3, 5, 4), -1, cut=1),
    Layout((3, 5, 4), -1, conditional=(0, 1)),
    Layout((4, 5, 2, 2), (1, 3), reduced=(0,), cut=0),
    Layout((2, 4, 3, 5), 1, cut=2),
)

LONG_BATCHES = (
    Layout((4096, 8), -1),
    Layout((16, 16, 16, 8), -1),
    Layout((8, 5, 16, 16), 1),
)
LONG_SAMPLES = (Layout((8, 4096), -1), Layout((5, 8, 16, 16), 1, reduced=(1, 2, 3)))
LONG_IMAGES = (Layout((2, 1024, 8), -1), Layout((4, 4, 32, 32), 1))
LARGE_BATCH = Layout((64, 8, 8, 16), -1)
LARGE_SAMPLES = Layout((256, 256), -1)
LARGE_IMAGES = Layout((4, 16, 16, 8), -1)

# Of filter response normalisation; some outputs are below the threshold.
RESPONSE = {"threshold": 0.3, "learned_epsilon": 0.1}

AVERAGE = jaxnorm.ema(0.99)
# Of batch renormalisation; for some features they bind, for others they do not.
LIMITS = {"r_max": 1.2, "d_max": 0.4}


def limits(steps):
    """The same, as modules are given them."""
    return LIMITS["r_max"], LIMITS["d_max"]


NORMS = (
    Norm(
        "batch_norm-train",
        jaxnorm.batch_norm,
        {"train": True, "estimator": AVERAGE},
        _own_moments,
        _batch,
        BATCHES,
        LONG_BATCHES,
        LARGE_BATCH,
        "BatchNorm",
        mode={"train": True},
        weighted_features=False,
    ),
    Norm(
        "batch_norm-eval",
        jaxnorm.batch_norm,
        {"train": False},
        _running_moments,
        _batch,
        BATCHES,
        LONG_BATCHES,
        LARGE_BATCH,
        "BatchNorm",
        mode={"train": False},
        own_moments=False,
        weighted_features=False,
    ),
    Norm(
        "batch_renorm",
        jaxnorm.batch_renorm,
        {"train": True, "estimator": AVERAGE, **LIMITS},
        partial(_renormalized, **LIMITS),
        _batch,
        BATCHES,
        LONG_BATCHES[:1],
        LARGE_BATCH,
        "BatchRenorm",
        {"limits": limits},
        {"train": True},
        weighted_features=False,
        exact_derivative=False,
    ),
    Norm(
        "layer_norm",
        jaxnorm.layer_norm,
        {},
        _own_moments,
        _sample,
        SAMPLES,
        LONG_SAMPLES,
        LARGE_SAMPLES,
        "LayerNorm",
        alone=True,
    ),
    Norm(
        "rms_norm",
        jaxnorm.rms_norm,
        {},
        partial(_own_moments, about_zero=True),
        _sample,
        SAMPLES,
        LONG_SAMPLES[:1],
        LARGE_SAMPLES,
        "RMSNorm",
        alone=True,
        centred=False,
    ),
    Norm(
        "group_norm",
        jaxnorm.group_norm,
        {"num_groups": 2},
        partial(_grouped, groups=2),
        _positions,
        IMAGES,
        LONG_IMAGES,
        LARGE_IMAGES,
        "GroupNorm",
        {"num_groups": 2},
        alone=True,
    ),
    Norm(
        "instance_norm",
        jaxnorm.instance_norm,
        {},
        _own_moments,
        _positions,
        IMAGES,
        LONG_IMAGES,
        LARGE_IMAGES,
        "InstanceNorm",
        alone=True,
    ),
    Norm(
        "filter_response_norm",
        jaxnorm.filter_response_norm,
        {},
        _filter_response,
        _positions,
        IMAGES,
        LONG_IMAGES,
        LARGE_IMAGES,
        "FilterResponseNorm",
        {"use_learned_epsilon": True},
        parameters=RESPONSE,
        alone=True,
        centred=False,
        finish=lambda y: np.maximum(y, np.float32(RESPONSE["threshold"])),
    ),
)

WEIGHTINGS = ("none", "mask", "float")


@dataclass(frozen=True)
class Case:
    """One row of the table, and the arrays it stands for."""

    norm: Norm
    layout: Layout
    dtype: str
    weighting: str

    def __str__(self) -> str:
        return f"{self.norm.name}-{self.layout}-{self.dtype}-{self.weighting}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def axis(self) -> int | tuple[int, ...]:
        return self.layout.axis

    @property
    def features(self) -> tuple[int, ...]:
        return self.layout.features

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        return self.layout.parameter_shape

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
        """Weights, some of them 0, but not all of those that one mean is taken of.

        They are the same for all features of batch norm, as those of padding are.
        """
        if self.weighting == "none":
            return None
        rng = np.random.default_rng(1)
        alike = () if self.norm.weighted_features else self.features
        shape = [1 if i in alike else n for i, n in enumerate(self.shape)]
        drawn = rng.uniform(0.5, 2.0, shape) * (rng.uniform(size=shape) < 0.7)
        over = self.norm.over(self.layout)
        drawn[tuple(slice(1 if i in over else None) for i in range(len(shape)))] = 1
        return jnp.asarray(
            drawn > 0 if self.weighting == "mask" else drawn.astype(np.float32)
        )

    def running(self) -> tuple[np.ndarray, np.ndarray]:
        """The running mean and variance that a norm with statistics is given."""
        return _running(self.layout.feature_shape)

    def apply(self, x, scale, bias, *, weights="own", axis_name=None, **parameters):
        reduced = self.layout.reduced
        return self.norm.apply(
            x,
            scale,
            bias,
            feature_axes=self.axis,
            features=self.layout.feature_shape,
            weights=self.weights() if isinstance(weights, str) else weights,
            axis_name=axis_name,
            **parameters,
            **({} if reduced is None else {"reduction_axes": reduced}),
        )

    def expect(self, *arrays) -> oracle.Oracle:
        """What the norm must make of these arrays and the weights of the case."""
        weights = self.weights()
        return self.norm.oracle(
            *(np.asarray(each).astype(np.float64) for each in arrays),
            layout=self.layout,
            reduced=self.norm.over(self.layout),
            weights=None if weights is None else np.asarray(weights),
        )

    def expected(self) -> oracle.Oracle:
        return self.expect(*self.arrays())


def cases(
    dtypes=("float32", "bfloat16", "float16", "float64"),
    weightings=WEIGHTINGS,
    few=False,
    in_turn=False,
):
    """The rows of the table with these dtypes and weights.

    Args:
      dtypes: of x.
      weightings: how x is weighted.
      few: for tests that compile much: of each norm the last layout only, which has
        features between other axes.
      in_turn: for those, too: the other layouts take the dtypes and weights in turn, one
        each, instead of all of them.
    """
    ways = [(dtype, weighting) for dtype in dtypes for weighting in weightings]

    def ways_of(norm, layout):
        if layout.conditional:
            # A scale of other axes is used in the same way whatever the dtype and weights.
            return [(dtypes[0], weightings[-1])]
        place = norm.layouts.index(layout)
        if in_turn and layout is not norm.layouts[-1]:
            return [ways[(place + NORMS.index(norm)) % len(ways)]]
        return ways

    return [
        Case(norm, layout, *way)
        for norm in NORMS
        for layout in (norm.layouts[-1:] if few else norm.layouts)
        for way in ways_of(norm, layout)
    ]


def rows(every, fast):
    """Parameters of a test: every one, in the slow run alone if it is not `fast`."""
    import pytest  # here: the check of a device goes through the table without it

    return [
        pytest.param(case, marks=() if case in fast else pytest.mark.slow) for case in every
    ]


def pairs(every, fast):
    """The same as `rows`, for tests with two parameters, such as a case and a way."""
    import pytest

    return [
        pytest.param(
            *each,
            id="-".join(map(str, each)),
            marks=() if each in fast else pytest.mark.slow,
        )
        for each in every
    ]


# The rounding of an output of size about 1, times a few operations.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
