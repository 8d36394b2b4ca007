"""Whether a call of an NNX batch norm trains, and whether it updates its statistics."""

from collections.abc import Mapping
from typing import Any

from jaxnorm._core.train_flags import check_train, resolve_train, resolve_update


def modes_of(module: Any, call: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns (train, update), from a call's arguments by name or else the module's modes.

    A frozen norm does neither.

    Raises:
      TypeError: a flag is not a bool.
      ValueError: `train` is missing or contradictory.
    """
    frozen = {
        "frozen (constructor)": getattr(module, "frozen", False),
        "frozen (call)": call.get("frozen", False),
    }
    check_train(**frozen)
    if any(frozen.values()):
        return False, False
    train, average = call.get("train"), call.get("use_running_average")
    if train is None and average is None:
        average = module.use_running_average
    train = resolve_train(train=train, use_running_average=average)
    update = call.get("update")
    if update is None:
        update = getattr(module, "update", None)
    return train, resolve_update(train, update=update)
