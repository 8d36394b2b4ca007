"""Group normalisation in each library."""

import functools
from typing import Any

from experiments.benchmarks import stateless

GROUPS = 32  # as in the paper; also the default of every library that has a default

LAYERS = stateless.layers(
    linen=lambda linen: functools.partial(linen.GroupNorm, GROUPS),
    haiku=lambda haiku: functools.partial(haiku.GroupNorm, GROUPS),
    equinox=lambda nn, channels: nn.GroupNorm(GROUPS, channels, stateless.EPSILON),
    keras=lambda layers: functools.partial(layers.GroupNormalization, GROUPS),
    channels_first=True,
)
FORMULA = stateless.Formula(functools.partial(stateless.each_group, groups=GROUPS))


def torch_forward(tensors: Any, *, train: bool) -> Any:
    """Torch's norm on `torch_programs.Tensors`."""
    from torch.nn.functional import group_norm

    params = stateless.torch_params(tensors)
    return group_norm(tensors.x, GROUPS, *params, eps=stateless.EPSILON)
