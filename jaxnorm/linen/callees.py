"""The layers and the norms that a Linen model calls, for those that pair them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jaxnorm._core.train_flags import resolve_train, resolve_update


def variables_at(variables: Mapping[str, Any], path: str) -> dict[str, Array]:
    """The parameters and statistics of the module at a path, by their names."""
    found: dict[str, Array] = {}
    for collection in ("params", "batch_stats"):
        at: Any = variables.get(collection, {})
        for part in filter(None, path.split("/")):
            at = at.get(part, {})
        found |= {name: each for name, each in at.items() if not isinstance(each, Mapping)}
    return found


def modes_of(module: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[bool, bool]:
    """Whether a norm, called so, normalises with the batch, and whether it updates."""
    called = args[1] if len(args) > 1 else kwargs.get("use_running_average")
    train = resolve_train(
        **{
            "train (constructor)": getattr(module, "train", None),
            "train (call)": kwargs.get("train"),
            "use_running_average (constructor)": module.use_running_average,
            "use_running_average (call)": called,
        }
    )
    update = getattr(module, "update", None)
    return train, resolve_update(train, constructor=update, call=kwargs.get("update"))


def variables_of(module: Any) -> dict[str, Array]:
    return variables_at(nn.meta.unbox(dict(module.variables)), "")
