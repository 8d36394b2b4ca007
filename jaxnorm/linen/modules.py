"""The layers and norms that are recognised in a Linen model, and their variables."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jaxnorm.linen.modes import modes_of
from jaxnorm.model.spec import norms_of

LAYERS = {
    nn.Dense: "dense",
    nn.DenseGeneral: "dense",
    nn.Conv: "conv",
    nn.ConvTranspose: "transposed",
}

NORMS = norms_of(nn, modes_of)


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
