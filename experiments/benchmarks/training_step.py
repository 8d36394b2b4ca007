"""A training step of a whole network, where the norm is a small part of the work."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.layers import Outputs, Program
from experiments.benchmarks.programs import compiled, temporary_bytes

CLASSES = 10


class Network(nn.Module):
    """Blocks of convolution, norm and relu; each except the first halves the image.

    Attributes:
      norm: makes a norm in training mode, given the dtype of its output.
      dtype: the dtype of the activations.
      widths: the number of channels of each block.
    """

    norm: Callable[..., nn.Module]
    dtype: str
    widths: Sequence[int] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits of images (N, H, W, 3)."""
        for block, width in enumerate(self.widths):
            stride = 1 if block == 0 else 2
            x = nn.Conv(width, (3, 3), stride, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(self.norm(dtype=self.dtype)(x))
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(CLASSES, dtype=self.dtype)(x).astype(jnp.float32)


def program(norm: Callable[..., nn.Module], shape: tuple[int, ...], dtype: str) -> Program:
    """Compiles a step of SGD with momentum on images of this shape."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal(shape, np.float32))
    labels = jnp.asarray(rng.integers(CLASSES, size=shape[0]), jnp.int32)
    network, optimizer = Network(norm, dtype), optax.sgd(0.1, momentum=0.9)
    variables = network.init(jax.random.key(0), images)
    params = variables["params"]

    def loss(params: Any, statistics: Any, images: Any, labels: Any) -> tuple:
        logits, updates = network.apply(
            {"params": params, "batch_stats": statistics}, images, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates["batch_stats"]

    def step(params: Any, statistics: Any, optimizing: Any, *batch: Any) -> tuple:
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, statistics, *batch
        )
        updates, optimizing = optimizer.update(gradient, optimizing, params)
        return optax.apply_updates(params, updates), statistics, optimizing, value

    start = (params, variables["batch_stats"], optimizer.init(params))
    arguments = (*start, images, labels)
    made, seconds = compiled(step, *arguments)
    return Program(
        lambda: jax.block_until_ready(made(*arguments)),
        lambda result: Outputs(),
        seconds,
        temporary_bytes(made),
    )
