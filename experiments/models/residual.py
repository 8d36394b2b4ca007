"""A small residual network in Linen, in which each norm follows a convolution."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxnorm.linen as jn
from jaxnorm import Estimator

WIDTHS = (16, 32, 64)


class NormalizedConv(nn.Module):
    """A convolution without bias (the norm's β replaces it), followed by its norm."""

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = None
    estimator: Estimator | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )(x)
        return jn.BatchNorm(train=train, dtype=self.dtype, estimator=self.estimator)(x)


class Block(nn.Module):
    """relu(F(x) + x) with two convolutions F; a third adapts x if F changes its shape."""

    features: int
    stride: int = 1
    dtype: Any = None
    estimator: Estimator | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(x: jax.Array, kernel: int, stride: int) -> jax.Array:
            layer = NormalizedConv(
                self.features, kernel, stride, self.dtype, self.estimator
            )
            return layer(x, train=train)

        y = conv(nn.relu(conv(x, 3, self.stride)), 3, 1)
        x = x if x.shape == y.shape else conv(x, 1, self.stride)
        return nn.relu(y + x)


class Residual(nn.Module):
    """A residual network (He et al. 2015): (B, H, W, C) → (B, classes).

    A first convolution, three stages of one block, the mean over the spatial axes, and a
    dense layer. The first convolution and stages two and three halve height and width.
    """

    classes: int = 10
    widths: tuple[int, ...] = WIDTHS
    dtype: Any = None
    estimator: Estimator | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        first = NormalizedConv(self.widths[0], 3, 2, self.dtype, self.estimator)
        x = nn.relu(first(x, train=train))
        for stage, width in enumerate(self.widths):
            block = Block(width, 2 if stage else 1, self.dtype, self.estimator)
            x = block(x, train=train)
        return nn.Dense(self.classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))
