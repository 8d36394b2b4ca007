"""Layer normalisation in each library."""

import functools
from typing import Any

from experiments.benchmarks import stateless

LAYERS = stateless.layers(
    linen=lambda linen: linen.LayerNorm,
    haiku=lambda haiku: functools.partial(haiku.LayerNorm, -1, True, True),
    equinox=lambda nn, channels: nn.LayerNorm(channels, stateless.EPSILON),
    keras=lambda layers: layers.LayerNormalization,
)
FORMULA = stateless.Formula(stateless.each_row)


def torch_forward(tensors: Any, *, train: bool) -> Any:
    """Torch's norm on `torch_programs.Tensors`."""
    from torch.nn.functional import layer_norm

    return stateless.torch_over_features(layer_norm, tensors)
