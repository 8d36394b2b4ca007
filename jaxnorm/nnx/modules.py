"""The layers and norms that are recognised in an NNX model, and their variables."""

from typing import Any

from flax import nnx
from jaxtyping import Array

from jaxnorm.model.spec import norms_of
from jaxnorm.nnx.modes import modes_of

LAYERS = {
    nnx.Linear: "dense",
    nnx.LinearGeneral: "dense",
    nnx.Conv: "conv",
    nnx.ConvTranspose: "transposed",
}

NORMS = norms_of(nnx, modes_of)


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
