"""The networks of the sources, in Linen."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax

import jaxnorm.linen as jn
from experiments.harness.data import Dataset
from experiments.models.architectures import (
    KERAS_KERNEL,
    KERAS_NORM,
    SEED_NORM,
    SEED_WIDTHS,
    Kit,
    Layer,
    convolutional,
    fully_connected,
)
from jaxnorm import Estimator


class ScaledDense(nn.Module):
    """x ↦ x·V/√n for n inputs, with V ~ N(0, 1): the scaling is part of the graph.

    Adam, whose steps have the size of its rate, therefore changes W = V/√n by rate/√n:
    by .0007 for a rate of .02 with 784 inputs.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        v = self.param("v", nn.initializers.normal(1.0), (inputs, self.features))
        return x @ (v / math.sqrt(inputs))


class SeedNetwork(nn.Module):
    """The network of the source article: dense layers, each normalised, relu in between.

    With `normalized=False` a bias takes the place of β and there is no γ; everything else
    is the same. The last layer is normalised, too, and returns the logits.

    The input of the first relu is sown into the collection `intermediates`. If given, an
    estimator replaces the source's moving average for the running statistics.
    """

    widths: tuple[int, ...] = SEED_WIDTHS
    normalized: bool = True
    estimator: Estimator | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for layer, width in enumerate(self.widths):
            x = nn.relu(x) if layer else x
            x = ScaledDense(width)(x)
            if self.normalized:
                x = jn.BatchNorm(train=train, estimator=self.estimator, **SEED_NORM)(x)
            else:
                x = x + self.param(f"bias_{layer}", nn.initializers.zeros, (width,))
            if layer == 0:
                self.sow("intermediates", "first", x)
        return x


class FullyConnected(nn.Module):
    """The fully connected network of `architectures.fully_connected`."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return _chain(x, fully_connected(_kit(train)))


class Convolutional(nn.Module):
    """The convolutional network of `architectures.convolutional`.

    Attributes:
      flatten: classifies whole images instead of the positions in them.
      classes: number of logits.
      norm: makes the norm of a layer, given `train`; defaults to the source's.
    """

    flatten: bool = False
    classes: int = 2
    norm: Callable[[bool], nn.Module] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        kit = _kit(train)
        if self.norm is not None:
            norm = self.norm
            kit = kit._replace(norm=lambda _: norm(train))
        return _chain(x, convolutional(kit, flatten=self.flatten, classes=self.classes))


def _kit(train: bool) -> Kit:
    return Kit(
        dense=lambda _, features: nn.Dense(features, kernel_init=KERAS_KERNEL),
        conv=lambda _, features: nn.Conv(
            features, (3, 3), padding="VALID", kernel_init=KERAS_KERNEL
        ),
        norm=lambda _: jn.BatchNorm(train=train, **KERAS_NORM),
    )


def _chain(x: jax.Array, layers: tuple[Layer, ...]) -> jax.Array:
    return functools.reduce(lambda x, layer: layer(x), layers, x)


def parameter_count(model: nn.Module, data: Dataset) -> int:
    """Returns the number of parameters of a model on this data, without creating them."""
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), data.train_images[:2], train=False)
    )
    return sum(math.prod(each.shape) for each in jax.tree.leaves(variables["params"]))
