"""ResNet-50 and transformer blocks in Linen, with the norm as an argument."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MakeNorm = Callable[[], nn.Module]


class Bottleneck(nn.Module):
    """The block of He et al. 2015, with its stride in the 3×3 convolution.

    Attributes:
      width: channels of the inner convolutions; the outer ones have four times as many.
      norm: makes the norm after each of them.
      stride: the stride of the block.
      dtype: the dtype of the activations.
    """

    width: int
    norm: MakeNorm
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(x: jax.Array, width: int, kernel: int, stride: int = 1) -> jax.Array:
            sizes = (kernel, kernel)
            x = nn.Conv(width, sizes, stride, use_bias=False, dtype=self.dtype)(x)
            return self.norm()(x)

        y = nn.relu(conv(x, self.width, 1))
        y = nn.relu(conv(y, self.width, 3, self.stride))
        y = conv(y, 4 * self.width, 1)
        x = x if x.shape == y.shape else conv(x, 4 * self.width, 1, self.stride)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network of bottlenecks: images (N, H, W, 3) → (N, classes).

    Attributes:
      norm: makes a norm.
      stages: the number of blocks in each stage; defaults to ResNet-50's.
      width: the width of the first stage.
      classes: the number of logits.
      dtype: the dtype of the activations.
    """

    norm: MakeNorm
    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (7, 7), 2, use_bias=False, dtype=self.dtype)(x)
        x = nn.max_pool(nn.relu(self.norm()(x)), (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                width = self.width * 2**stage
                x = Bottleneck(width, self.norm, stride, self.dtype)(x)
        x = nn.Dense(self.classes, dtype=self.dtype)(jnp.mean(x, (1, 2)))
        return x.astype(jnp.float32)


class Transformer(nn.Module):
    """Pre-norm blocks: x + attention(norm(x)), then x + mlp(norm(x)), of (N, L, D).

    Attributes:
      norm: makes a norm.
      blocks: the number of blocks.
      heads: the number of attention heads.
      dtype: the dtype of the activations.
    """

    norm: MakeNorm
    blocks: int = 2
    heads: int = 16
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(x: jax.Array, features: int) -> jax.Array:
            return nn.Dense(features, use_bias=False, dtype=self.dtype)(x)

        features = x.shape[-1]
        for _ in range(self.blocks):
            q, k, v = (
                each.reshape(*x.shape[:-1], self.heads, -1)
                for each in jnp.split(dense(self.norm()(x), 3 * features), 3, axis=-1)
            )
            attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + dense(attended.reshape(x.shape), features)
            x = x + dense(nn.gelu(dense(self.norm()(x), 4 * features)), features)
        return x
