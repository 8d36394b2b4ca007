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
    """x ↦ x·V/√n for n inputs: the scaling lies inside the graph, V ~ N(0, 1).

    So Adam, whose steps are of the size of its rate, moves W = V/√n by rate/√n: at .02
    with 784 inputs by .0007.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        v = self.param("v", nn.initializers.normal(1.0), (inputs, self.features))
        return x @ (v / math.sqrt(inputs))


class SeedNetwork(nn.Module):
    """The network of the source article: dense layers, each normalised, relu between.

    With `normalized=False` a bias stands in place of β, and there is no γ; all else is
    the same. The last layer is normalised too, and gives the logits.

    The input of the first relu is sown into the collection `intermediates`. An estimator
    keeps the running statistics in place of the source's moving average.
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
      flatten: classifies the images, not the positions in them.
      classes: how many logits.
      norm: makes the norm of a layer, from whether to train; None is the source's.
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
    """How many parameters a model has on this data, without making them."""
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), data.train_images[:2], train=False)
    )
    return sum(math.prod(each.shape) for each in jax.tree.leaves(variables["params"]))
