"""The networks of the sources, in NNX."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx

import jaxnorm.nnx as jx
from experiments.models.architectures import (
    KERAS_KERNEL,
    KERAS_NORM,
    SEED_NORM,
    SEED_WIDTHS,
    Kit,
    convolutional,
    fully_connected,
)
from jaxnorm import Estimator


class ScaledDense(nnx.Module):
    """x ↦ x·V/√n; the Linen version explains why."""

    def __init__(self, inputs: int, features: int, *, rngs: nnx.Rngs):
        self.v = nnx.Param(jax.random.normal(rngs.params(), (inputs, features)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ (self.v[...] / math.sqrt(x.shape[-1]))


class Shift(nnx.Module):
    """A bias in place of a norm."""

    def __init__(self, features: int):
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.bias[...]


class SeedNetwork(nnx.Module):
    """The network of the source article, as in Linen, but without sowing."""

    def __init__(
        self,
        inputs: int = 784,
        widths: tuple[int, ...] = SEED_WIDTHS,
        *,
        normalized: bool = True,
        estimator: Estimator | None = None,
        rngs: nnx.Rngs,
    ):
        sizes = itertools.pairwise((inputs, *widths))
        self.dense = nnx.List([ScaledDense(*size, rngs=rngs) for size in sizes])
        self.after = nnx.List(
            [
                jx.BatchNorm(width, estimator=estimator, **SEED_NORM, rngs=rngs)
                if normalized
                else Shift(width)
                for width in widths
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer, (dense, after) in enumerate(zip(self.dense, self.after, strict=True)):
            x = nnx.relu(x) if layer else x
            x = after(dense(x))
        return x


class FullyConnected(nnx.Sequential):
    """The fully connected network of `architectures.fully_connected`."""

    def __init__(self, *, rngs: nnx.Rngs):
        super().__init__(*fully_connected(_kit(rngs)))


class Convolutional(nnx.Sequential):
    """The convolutional network of `architectures.convolutional`."""

    def __init__(self, *, flatten: bool = False, rngs: nnx.Rngs):
        super().__init__(*convolutional(_kit(rngs), flatten=flatten))


def _kit(rngs: nnx.Rngs) -> Kit:
    return Kit(
        dense=functools.partial(nnx.Linear, kernel_init=KERAS_KERNEL, rngs=rngs),
        conv=functools.partial(
            nnx.Conv,
            kernel_size=(3, 3),
            padding="VALID",
            kernel_init=KERAS_KERNEL,
            rngs=rngs,
        ),
        norm=lambda features: jx.BatchNorm(features, **KERAS_NORM, rngs=rngs),
    )
