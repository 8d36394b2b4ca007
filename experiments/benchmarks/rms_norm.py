"""Root mean square normalisation in each library, with a scale but no bias."""

import functools
from typing import Any

from experiments.benchmarks import stateless

LAYERS = stateless.layers(
    linen=lambda linen: linen.RMSNorm,
    haiku=lambda haiku: functools.partial(haiku.RMSNorm, -1),
    equinox=lambda nn, channels: nn.RMSNorm(channels, stateless.EPSILON, use_bias=False),
    keras=lambda layers: layers.RMSNormalization,
)
FORMULA = stateless.Formula(stateless.each_row, centred=False)


def torch_forward(tensors: Any, *, train: bool) -> Any:
    """Torch's norm on `torch_programs.Tensors`."""
    from torch.nn.functional import rms_norm

    return stateless.torch_over_features(rms_norm, tensors)
