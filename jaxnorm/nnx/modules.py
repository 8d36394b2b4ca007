"""The layers and norms that are recognised in an NNX model, and their variables."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array

from jaxnorm.model.spec import (
    Norms,
    NormSpec,
    batch_spec,
    group_spec,
    instance_spec,
    layer_spec,
)
from jaxnorm.nnx.modes import modes_of

LAYERS = {
    nnx.Linear: "dense",
    nnx.LinearGeneral: "dense",
    nnx.Conv: "conv",
    nnx.ConvTranspose: "transposed",
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
        nnx.BatchNorm: _batch,
        nnx.LayerNorm: _layer,
        nnx.RMSNorm: _rms,
        nnx.InstanceNorm: _instance,
        nnx.GroupNorm: _group,
    }
)


def is_layer_or_norm(kind: type) -> bool:
    """Whether a class is one of the recognised layers or norms."""
    return issubclass(kind, tuple(LAYERS)) or NORMS.is_kind(kind)


def variables_of(module: Any) -> dict[str, Array]:
    """Returns the values of a module's variables, by name."""
    return {
        name: each[...]
        for name, each in vars(module).items()
        if isinstance(each, nnx.Variable)
    }
