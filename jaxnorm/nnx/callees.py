"""The layers and the norms that an NNX model calls, for those that pair them."""

from typing import Any

from flax import nnx
from jaxtyping import Array

from jaxnorm._core.train_flags import resolve_train, resolve_update


def variables_of(module: Any) -> dict[str, Array]:
    """The values of a module's variables, by their names."""
    return {
        name: each[...]
        for name, each in vars(module).items()
        if isinstance(each, nnx.Variable)
    }


def modes_of(module: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[bool, bool]:
    """Whether a norm, called so, normalises with the batch, and whether it updates.

    What is said in the call goes before what the module was set to.
    """
    average = args[1] if len(args) > 1 else kwargs.get("use_running_average")
    train = kwargs.get("train")
    if average is None and train is None:
        average = module.use_running_average
    train = resolve_train(train=train, use_running_average=average)
    update = kwargs.get("update")
    if update is None:
        update = getattr(module, "update", None)
    return train, resolve_update(train, update=update)
