"""The layers and norms that are recognised in a Linen model, and their variables."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jaxnorm.linen.modes import modes_of
from jaxnorm.model.spec import (
    Norms,
    NormSpec,
    batch_spec,
    group_spec,
    instance_spec,
    layer_spec,
)

LAYERS = {
    nn.Dense: "dense",
    nn.DenseGeneral: "dense",
    nn.Conv: "conv",
    nn.ConvTranspose: "transposed",
}


def _batch(module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
    return batch_spec(module, x, *modes_of(module, call))


def _layer(module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
    return layer_spec(module, x)


def _rms(module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
    return layer_spec(module, x, centred=False)


def _instance(module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
    return instance_spec(module, x)


def _group(module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
    return group_spec(module, x)


# Flax's own classes. Those of jaxnorm describe themselves with a method `norm_spec`.
NORMS = Norms(
    {
        nn.BatchNorm: _batch,
        nn.LayerNorm: _layer,
        nn.RMSNorm: _rms,
        nn.InstanceNorm: _instance,
        nn.GroupNorm: _group,
    }
)


def variables_at(variables: Mapping[str, Any], path: str) -> dict[str, Array]:
    """Returns the parameters and statistics of the module at a path, by name."""
    found: dict[str, Array] = {}
    for collection in ("params", "batch_stats"):
        at: Any = variables.get(collection, {})
        for part in filter(None, path.split("/")):
            at = at.get(part, {})
        found |= {name: each for name, each in at.items() if not isinstance(each, Mapping)}
    return found


def variables_of(module: Any) -> dict[str, Array]:
    """Returns the parameters and statistics of a bound module, by name."""
    return variables_at(nn.meta.unbox(dict(module.variables)), "")
