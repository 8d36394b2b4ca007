"""Calls a Linen model in training or evaluation mode, whatever the name of its flag."""

import inspect
from typing import Any

import flax.linen as nn

# Common names of the flag, with its value in training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def call_in_mode(model: nn.Module, batch: Any, train: bool) -> Any:
    """Calls a bound model on a batch, and passes the mode if its call takes a flag."""
    taken = inspect.signature(model.__call__).parameters
    # A flag that is set as an attribute is not passed again.
    flag = next(
        (
            {name: train is on}
            for name, on in FLAGS.items()
            if name in taken and not isinstance(getattr(model, name, None), bool)
        ),
        {},
    )
    return model(batch, **flag)  # pyright: ignore[reportCallIssue]


def in_mode(model: nn.Module, train: bool) -> nn.Module:
    """Returns a copy of the model with attributes that are such flags set to the mode."""
    said: dict[str, Any] = {
        name: train is on
        for name, on in FLAGS.items()
        if isinstance(getattr(model, name, None), bool)
    }
    return model.clone(**said) if said else model
