"""A training step of a network with the norms of one library, and its runs."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxnorm.linen as jn
from experiments.device_check.compiling import Source
from experiments.device_check.networks import MakeNorm

RATE = 1e-3
LIBRARIES: dict[str, Any] = {"jaxnorm": jn, "flax": nn}


class Network(NamedTuple):
    """A network to train.

    Attributes:
      name: its name in tables.
      norm: the name of its norm in both libraries, and its options.
      make: `make(norm, dtype=...)` returns the module.
      shape: the shape of the batch.
      classes: number of image classes; None predicts an array like the input.
      dtype: the dtype of the activations.
      seconds: approximate time for compiling and measuring.
    """

    name: str
    norm: tuple[str, dict[str, Any]]
    make: Callable[..., nn.Module]
    shape: tuple[int, ...]
    classes: int | None
    dtype: str
    seconds: float

    def module(self, library: str) -> nn.Module:
        """Returns the module with the norms of a library."""
        name, options = self.norm
        norm: MakeNorm = functools.partial(
            getattr(LIBRARIES[library], name), dtype=self.dtype, **options
        )
        return self.make(norm, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(map(str, self.shape))} {self.dtype}"


def step_of(network: Network, library: str) -> Source:
    """Returns a gradient descent step as a function of ((parameters, state), x, target)."""
    module = network.module(library)
    x = jax.ShapeDtypeStruct(network.shape, network.dtype)
    variables = dict(jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x))
    params = variables.pop("params")
    target = x
    if network.classes is not None:
        target = jax.ShapeDtypeStruct(network.shape[:1], jnp.int32)

    def loss(params: Any, state: Any, x: Any, target: Any) -> tuple[Any, Any]:
        y, state = module.apply({"params": params, **state}, x, mutable=list(state))
        return _error(y, target), state

    def step(trained: Any, x: Any, target: Any) -> Any:
        params, state = trained
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, state, x, target
        )
        params = jax.tree.map(lambda each, g: each - RATE * g, params, gradient)
        return (params, state), value

    return Source(step, ((params, variables), x, target), donated=(0,))


def _error(y: Any, target: Any) -> Any:
    """Returns the cross entropy of labels, or the mean squared difference."""
    if target.ndim == 1:
        logits = jax.nn.log_softmax(y)
        return -jnp.mean(jnp.take_along_axis(logits, target[:, None], axis=-1))
    return jnp.mean(jnp.square((y - target).astype(jnp.float32)))


class Training:
    """A network in training; a call takes several steps and waits for the last."""

    def __init__(self, arguments: Any, classes: int | None, compiled: Any, calls: int):
        self._compiled, self._calls = compiled, calls
        trained, x, target = arguments
        self._trained = jax.tree_util.tree_map_with_path(initial, trained)
        inputs = jnp.asarray(_noise(x.shape), x.dtype)
        labels = jnp.arange(target.shape[0], dtype=jnp.int32) % (classes or 1)
        self._batch = inputs, inputs if classes is None else labels
        self.loss: Any = None

    def __call__(self) -> None:
        """Takes the steps and waits for the last."""
        for _ in range(self._calls):
            self._trained, self.loss = self._compiled(self._trained, *self._batch)
        jax.block_until_ready((self._trained, self.loss))


def initial(path: Any, shape: Any) -> jax.Array:
    """Returns a variable's initial value by its name, the same in both libraries.

    Avoids flax's initialisers, which would have to be compiled.
    """
    name = path[-1].key
    if name == "kernel":
        inputs = math.prod(shape.shape[:-1])
        return jnp.asarray(_noise(shape.shape) / math.sqrt(inputs), shape.dtype)
    fill = np.ones if name in ("scale", "var") else np.zeros
    return jnp.asarray(fill(shape.shape), shape.dtype)


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1), repeating the same 65,521 numbers, which is faster than drawing all."""
    drawn = np.random.default_rng(0).standard_normal(65_521, np.float32)
    return np.resize(drawn, shape)
