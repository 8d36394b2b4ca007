"""Whether a call of a Linen batch norm trains, and whether it updates its statistics."""

from collections.abc import Mapping
from typing import Any

from jaxnorm._core.train_flags import check_train, resolve_train, resolve_update


def modes_of(module: Any, call: Mapping[str, Any]) -> tuple[bool, bool]:
    """Returns (train, update), from a norm's attributes and a call's arguments by name.

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
    train = resolve_train(
        **{
            "train (constructor)": getattr(module, "train", None),
            "train (call)": call.get("train"),
            "use_running_average (constructor)": module.use_running_average,
            "use_running_average (call)": call.get("use_running_average"),
        }
    )
    flags = {
        "update (constructor)": getattr(module, "update", None),
        "update (call)": call.get("update"),
    }
    return train, resolve_update(train, **flags)
