"""Shared code for norms without running statistics, which a library calls alike."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxnorm.linen as jn
from experiments.benchmarks.layers import EPSILON, Inputs, Layer, Shape, keras_policy

Make = Callable[..., Any]


def layers(
    *, linen: Make, haiku: Make, equinox: Make, keras: Make, channels_first: bool = False
) -> dict[str, Callable[..., Layer]]:
    """Returns `build(inputs, dtype) -> Layer` for each JAX library.

    Args:
      linen: `linen(modules)` returns the class, in `jaxnorm.linen` and in `flax.linen`.
      haiku: `haiku(modules)` returns the class.
      equinox: `equinox(modules, channels)` returns the layer for one example.
      keras: `keras(modules)` returns the class.
      channels_first: whether equinox's example has its channels first; otherwise it is a
        vector of features.
    """
    return {
        "jaxnorm": functools.partial(_linen, module=linen(jn)),
        "flax": functools.partial(_linen, module=linen(nn)),
        "haiku": functools.partial(_haiku, make=haiku),
        "equinox": functools.partial(_equinox, make=equinox, channels_first=channels_first),
        "keras": functools.partial(_keras, make=keras),
    }


def _layer(apply: Callable[[Any, jax.Array], Any], **options: Any) -> Layer:
    """Makes a layer from `apply(params, x) -> y`."""
    return Layer(
        lambda params, state, x: (apply(params, x), state),
        lambda params, state, x: apply(params, x),
        **options,
    )


def _linen(inputs: Inputs, dtype: str, *, module: Make) -> Layer:
    made = module(epsilon=EPSILON, dtype=dtype)
    return _layer(lambda params, x: made.apply({"params": params}, x))


def _haiku(inputs: Inputs, dtype: str, *, make: Make) -> Layer:
    """With parameters of the given dtype; haiku would have created them in x's dtype."""
    import haiku as hk

    norm = hk.transform(lambda x: make(hk)(eps=EPSILON, name="norm")(x))
    names = {"scale": "scale", "bias": "offset"}

    def apply(params: Any, x: jax.Array) -> Any:
        given = {names[name]: each.astype(dtype) for name, each in params.items()}
        return norm.apply({"norm": given}, None, x)

    return _layer(apply)


def _equinox(inputs: Inputs, dtype: str, *, make: Make, channels_first: bool) -> Layer:
    """Maps the layer, which takes one example, over all leading axes."""
    import equinox as eqx

    made = make(eqx.nn, inputs.x.shape[-1])
    names = {"scale": "weight", "bias": "bias"}
    mapped = 1 if channels_first else inputs.x.ndim - 1

    def apply(params: Any, x: jax.Array) -> Any:
        def held(norm: Any) -> list[Any]:
            return [getattr(norm, names[name]) for name in params]

        norm: Any = eqx.tree_at(held, made, list(params.values()))
        for _ in range(mapped):
            norm = jax.vmap(norm)
        return norm(x)

    return _layer(apply, channels_first=channels_first)


def _keras(inputs: Inputs, dtype: str, *, make: Make) -> Layer:
    """Uses the JAX backend, with float32 variables."""
    from keras import layers

    made = make(layers)(epsilon=EPSILON, dtype=keras_policy(dtype))
    made.build(inputs.x.shape)

    def apply(params: Any, x: jax.Array) -> Any:
        variables = [params[name] for name in inputs.params]  # jit sorts a dict by name
        return made.stateless_call(variables, [], x)[0]

    return _layer(apply)


def torch_params(tensors: Any) -> list[Any]:
    """Returns the parameters in x's dtype, as torch's GPU kernels require."""
    return [each.to(tensors.x.dtype) for each in tensors.params.values()]


def torch_over_features(norm: Callable, tensors: Any) -> Any:
    """Applies a torch norm that takes features last, as x has them in memory."""
    x = tensors.x.movedim(1, -1)
    y = norm(x, x.shape[-1:], *torch_params(tensors), eps=EPSILON)
    return y.movedim(-1, 1)


def each_row(shape: Shape) -> Shape:
    """Blocks in which each vector of features is normalised on its own."""
    return math.prod(shape[:-1]), 1, 1, shape[-1]


def each_group(shape: Shape, groups: int | None) -> Shape:
    """Blocks of feature groups of each sample; None is one group per feature."""
    channels = shape[-1]
    groups = groups or channels
    return shape[0], math.prod(shape[1:-1]), groups, channels // groups


@dataclass(frozen=True)
class Formula:
    """A norm in float64.

    Attributes:
      blocks: reshapes x to (samples, positions, groups, features of a group); moments are
        taken over positions and features.
      centred: whether the mean is subtracted.
    """

    blocks: Callable[[Shape], Shape]
    centred: bool = True

    def pooled(self, shape: Shape) -> int:
        """Returns how many values share moments; 0 if the groups do not divide x."""
        _, positions, groups, features = self.blocks(shape)
        return positions * features if groups * features == shape[-1] else 0

    def y(self, inputs: Inputs, *, train: bool = True) -> np.ndarray:
        """Returns the output, which is the same in training and evaluation."""
        normalized, _ = self._normalized(inputs)
        y = normalized.reshape(inputs.x.shape) * inputs.params["scale"]
        return y + inputs.params.get("bias", 0)

    def dx(self, inputs: Inputs) -> np.ndarray:
        """Returns the gradient with respect to x."""
        normalized, inverse = self._normalized(inputs)
        g = np.asarray(inputs.g, np.float64) * inputs.params["scale"]
        g = g.reshape(normalized.shape)
        off = normalized * _mean(g * normalized) + (_mean(g) if self.centred else 0)
        return (inverse * (g - off)).reshape(inputs.x.shape)

    def _normalized(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Returns x̂ and 1/√(σ² + ε), in blocks."""
        x = np.asarray(inputs.x, np.float64).reshape(self.blocks(inputs.x.shape))
        x = x - _mean(x) if self.centred else x
        inverse = 1 / np.sqrt(_mean(x**2) + EPSILON)
        return x * inverse, inverse


def _mean(blocks: np.ndarray) -> np.ndarray:
    return blocks.mean((1, 3), keepdims=True)
