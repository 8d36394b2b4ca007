"""A small network in both APIs, for tests to inject faults: dense, norm, relu, twice."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx

INPUTS, WIDTH, CLASSES = 6, 12, 3
NORMS = ("norm_0", "norm_1")


def inputs(seed: int, *shape: int) -> jax.Array:
    """Inputs for a healthy network, with mean 3 and standard deviation 2."""
    return 3 + 2 * jax.random.normal(jax.random.key(seed), (*shape, INPUTS))


def run(layers: Any, x: Any, train: bool, mask: Any, ignored: bool) -> jax.Array:
    """Runs the network; if `ignored`, the second norm always trains."""
    flag, deaf = {"train": train}, {"train": train or ignored}
    x = nn.relu(layers.norm_0(layers.dense_0(x), mask=mask, **flag))
    x = nn.relu(layers.norm_1(layers.dense_1(x), mask=mask, **deaf))
    return layers.dense_2(x)


class LinenNetwork(nn.Module):
    options: Any

    def setup(self):
        self.dense_0, self.dense_1 = nn.Dense(WIDTH), nn.Dense(WIDTH)
        self.dense_2 = nn.Dense(CLASSES)
        self.norm_0, self.norm_1 = jn.BatchNorm(), jn.BatchNorm(**self.options)

    def __call__(self, x, train, mask=None, ignored=False):
        return run(self, x, train, mask, ignored)


class NnxNetwork(nnx.Module):
    def __init__(self, options, rngs):
        self.dense_0 = nnx.Linear(INPUTS, WIDTH, rngs=rngs)
        self.dense_1 = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.dense_2 = nnx.Linear(WIDTH, CLASSES, rngs=rngs)
        self.norm_0 = jx.BatchNorm(WIDTH, rngs=rngs)
        self.norm_1 = jx.BatchNorm(WIDTH, **options, rngs=rngs)

    def __call__(self, x, train, mask=None, ignored=False):
        return run(self, x, train, mask, ignored)


class Linen:
    """The network in Linen.

    The seed initialises the weights; the options are for the second norm. Each batch is an
    array, or a tuple of x and a mask.
    """

    def __init__(self, seed: int = 0, **options: Any):
        self.model = LinenNetwork(FrozenDict(options))
        key, x = jax.random.key(seed), inputs(0, 2)
        self.variables = self.model.init(key, x, train=False)

    def values(self, layer: str) -> dict[str, jax.Array]:
        """Returns all arrays of a layer, by name."""
        collections = ("params", "batch_stats")
        return {
            name: value
            for each in collections
            for name, value in self.variables[each].get(layer, {}).items()
        }

    def put(self, layer: str, **values: Any) -> None:
        """Replaces arrays of a layer."""

        def replaced(path, old):
            name, inside = path[-1].key, path[-2].key == layer
            return values[name] if inside and name in values else old

        self.variables = jax.tree.map_with_path(replaced, self.variables)

    def calibrate(self, batches: Any) -> None:
        """Sets the running statistics to the statistics of these batches."""

        def apply(variables, batch):
            x, mask = batch if isinstance(batch, tuple) else (batch, None)
            return self.model.apply(variables, x, True, mask, mutable=["batch_stats"])

        self.variables = jaxnorm.calibrate(apply, self.variables, batches, progress=False)

    def diagnose(self, batches: Any, ignored: bool = False, **options: Any) -> Any:
        """Returns the report."""
        call = _call(ignored)
        return jn.diagnose(self.model, self.variables, batches, call=call, **options)


class Nnx:
    """The network in NNX, with the same methods."""

    def __init__(self, seed: int = 0, **options: Any):
        self.model = NnxNetwork(options, rngs=nnx.Rngs(seed))

    def values(self, layer: str) -> dict[str, jax.Array]:
        variables = vars(getattr(self.model, layer)).items()
        return {
            name: each[...] for name, each in variables if isinstance(each, nnx.Variable)
        }

    def put(self, layer: str, **values: Any) -> None:
        for name, value in values.items():
            getattr(getattr(self.model, layer), name)[...] = value

    def calibrate(self, batches: Any) -> None:
        def call(model, batch):
            x, mask = batch if isinstance(batch, tuple) else (batch, None)
            # No train flag: the norms stay in the mode that calibration sets.
            layers, mode = model, {"mask": mask}
            x = nn.relu(layers.norm_0(layers.dense_0(x), **mode))
            return layers.norm_1(layers.dense_1(x), **mode)

        jx.calibrate(self.model, batches, call=call, progress=False)

    def diagnose(self, batches: Any, ignored: bool = False, **options: Any) -> Any:
        return jx.diagnose(self.model, batches, call=_call(ignored), **options)


@functools.cache
def _call(ignored: bool) -> Any:
    def call(model, batch, train):
        x, mask = batch if isinstance(batch, tuple) else (batch, None)
        return model(x, train, mask, ignored)

    return call


def well(kind: Any, *, seed: int = 0, size: int = 64, **options: Any) -> tuple[Any, list]:
    """Returns a healthy network, and new batches of the data it was calibrated on."""
    subject = kind(seed, **options)
    for norm, values in _measured(kind, seed, size).items():
        subject.put(norm, **values)
    return subject, [inputs(100 + i, size) for i in range(2)]


@functools.cache
def _measured(kind: Any, seed: int, size: int) -> dict[str, dict[str, jax.Array]]:
    subject = kind(seed)
    # About as much data as an average with decay 0.99 covers.
    subject.calibrate([inputs(1, 100 * size)])
    return {norm: subject.values(norm) for norm in NORMS}


def middle(x: Any) -> jax.Array:
    """Selects half of the features."""
    return jnp.arange(x.shape[-1]) < x.shape[-1] // 2
