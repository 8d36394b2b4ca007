"""The layers of the sources' networks, written once for Linen and NNX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

Layer = Callable[[jax.Array], jax.Array]

# Row 64 of the claims, from a TensorFlow program; widths after the 784 inputs.
SEED_WIDTHS = (1000, 500, 250, 250, 250, 10)
SEED_NORM: dict[str, Any] = {"momentum": 0.99, "epsilon": 1e-10}

# Rows 50 and 55, from Keras; these are its defaults.
KERAS_NORM: dict[str, Any] = {"momentum": 0.99, "epsilon": 1e-3}
KERAS_KERNEL = nn.initializers.glorot_uniform()


class Kit(NamedTuple):
    """How a framework makes the layers that have parameters.

    Attributes:
      dense: makes a dense layer from its numbers of input and output features.
      conv: makes a 3×3 convolution without padding from the same arguments.
      norm: makes batch normalisation from the number of features.
    """

    dense: Callable[[int, int], Layer]
    conv: Callable[[int, int], Layer]
    norm: Callable[[int], Layer]


def fully_connected(kit: Kit) -> tuple[Layer, ...]:
    """Row 50: (B, 1, 5) → (B, 1, 2), normalised after relu.

    The source's softmax is left to the loss.
    """
    return (
        *(kit.dense(5, 16), nn.relu, kit.norm(16)),
        *(kit.dense(16, 32), nn.relu, kit.norm(32)),
        kit.dense(32, 2),
    )


def convolutional(kit: Kit, *, flatten: bool, classes: int = 2) -> tuple[Layer, ...]:
    """Row 55: (B, 28, 28, 3) → (B, 12, 12, 2), or (B, 2) with `flatten`.

    Without `flatten`, as in the source, it classifies each position of the feature maps.
    """
    features = 12 * 12 * 32 if flatten else 32
    return (
        *(kit.conv(3, 32), nn.relu, kit.norm(32)),
        *(kit.conv(32, 32), nn.relu, kit.norm(32)),
        _pool,
        *((_flatten,) if flatten else ()),
        kit.dense(features, classes),
    )


def _pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _flatten(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)
