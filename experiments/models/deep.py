"""Deep networks of dense layers that differ mainly in their norm."""

from collections.abc import Callable

import flax.linen as nn
import jax
from flax.typing import Initializer

import jaxnorm
import jaxnorm.linen as jn

Norm = Callable[[bool], nn.Module]  # makes the norm of each layer, given `train`
Activation = Callable[[jax.Array], jax.Array]

# Accurate from the first step, so that evaluation shows the network and not the average.
ESTIMATOR = jaxnorm.ema(0.99, warmup=True)


def batch_norm(train: bool) -> nn.Module:
    """Returns batch norm with a warmed-up moving average."""
    return jn.BatchNorm(train=train, estimator=ESTIMATOR)


def layer_norm(train: bool) -> nn.Module:
    """Returns layer norm, which is the same in training and evaluation."""
    return jn.LayerNorm()


def group_norm(train: bool) -> nn.Module:
    """Returns group norm with ten groups, the same in training and evaluation."""
    return jn.GroupNorm(num_groups=10)


def batch_renorm(steps: int) -> Norm:
    """Makes batch renorm whose limits grow as in the paper, scaled to so many steps.

    In the paper (arXiv:1702.03275) they start to grow at 4 % of 125,000 steps, and reach
    their final values at 20 % and 32 %.
    """
    limits = jaxnorm.renorm_schedule(
        start=steps // 25, d_end=max(1, steps // 5), r_end=max(1, 8 * steps // 25)
    )
    return lambda train: jn.BatchRenorm(train=train, estimator=ESTIMATOR, limits=limits)


class Deep(nn.Module):
    """Dense layers, each with a norm and an activation, and a last one with neither.

    The input of each activation is sown into the collection `intermediates`, as `inputs`.

    Attributes:
      widths: widths of the hidden layers.
      classes: number of logits.
      norm: makes the norm of a layer; None for no norm.
      activation: the activation, applied after or before the norm.
      norm_first: whether the norm comes before the activation.
      kernel_init: initialises the weights of all layers.
      skip: adds the input of a hidden layer to its output if both have the same width.
      dropout: the share of hidden units dropped in training, after the activation.
    """

    widths: tuple[int, ...] = (100, 100, 100)
    classes: int = 10
    norm: Norm | None = None
    activation: Activation = nn.relu
    norm_first: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    skip: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for width in self.widths:
            y = nn.Dense(width, kernel_init=self.kernel_init)(x)
            y = self._activated(y, train)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = x + y if self.skip and x.shape == y.shape else y
        return nn.Dense(self.classes, kernel_init=self.kernel_init)(x)

    def _activated(self, x: jax.Array, train: bool) -> jax.Array:
        normalized = (lambda x: x) if self.norm is None else self.norm(train)
        x = normalized(x) if self.norm_first else x
        self.sow("intermediates", "inputs", x)
        x = self.activation(x)
        return x if self.norm_first else normalized(x)
