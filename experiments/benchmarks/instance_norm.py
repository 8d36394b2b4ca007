"""Instance normalisation in each library, in some as groups of one feature."""

import functools
from typing import Any

from experiments.benchmarks import stateless

LAYERS = stateless.layers(
    linen=lambda linen: linen.InstanceNorm,
    haiku=lambda haiku: functools.partial(haiku.InstanceNorm, True, True),
    equinox=lambda nn, channels: nn.GroupNorm(channels, channels, stateless.EPSILON),
    keras=lambda layers: functools.partial(layers.GroupNormalization, -1),
    channels_first=True,
)
FORMULA = stateless.Formula(functools.partial(stateless.each_group, groups=None))


def torch_forward(tensors: Any, *, train: bool) -> Any:
    """Torch's norm on `torch_programs.Tensors`."""
    from torch.nn.functional import instance_norm

    scale, bias = stateless.torch_params(tensors)
    return instance_norm(tensors.x, weight=scale, bias=bias, eps=stateless.EPSILON)
