"""Calls a Linen model in training or evaluation, whatever it calls the flag."""

import inspect
from typing import Any

import flax.linen as nn

# What models call the flag, and what it is in training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def call_in_mode(model: nn.Module, batch: Any, train: bool) -> Any:
    """Calls a bound model on a batch, with the mode in the flag that it takes, if any."""
    taken = inspect.signature(model.__call__).parameters
    # What an attribute says is not said twice.
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
    """Returns the model with its attributes that are such a flag set to the mode."""
    said: dict[str, Any] = {
        name: train is on
        for name, on in FLAGS.items()
        if isinstance(getattr(model, name, None), bool)
    }
    return model.clone(**said) if said else model
