"""Resolves the flags given to a module: train or evaluate, and whether to update."""

from typing import Any

import numpy as np


def check_flags(mend: str = "", /, **flags: Any) -> None:
    """Raises a TypeError unless each flag is True or False; numbers are rejected."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{name}={flag!r}, but True or False is expected{mend}.")


def check_train(**flags: Any) -> None:
    """Raises a TypeError unless each flag is True or False."""
    check_flags(
        ": train=True to normalise with the batch and update the statistics, train=False "
        "to use the running ones. Under jax.jit, mark it static",
        **flags,
    )


def resolve_train(**flags: bool | None) -> bool:
    """Whether to train, from flags that are None where they were not given.

    A flag with `use_running_average` in its name means the opposite of the others.

    Raises:
      TypeError: a flag is not a bool.
      ValueError: the flags are missing or contradictory.

    >>> resolve_train(train=None, use_running_average=False)
    True
    """
    given = {name: flag for name, flag in flags.items() if flag is not None}
    check_train(**given)
    answers = {
        bool(flag) != ("use_running_average" in name) for name, flag in given.items()
    }
    if len(answers) == 1:
        return answers.pop()
    mend = (
        "write train=True to normalise with the batch and update the statistics, or "
        "train=False to use the running ones, in the constructor or in the call. "
        "(flax's use_running_average is the opposite of train.)"
    )
    if not given:
        raise ValueError(f"train is missing; {mend}")
    said = ", ".join(f"{name}={flag}" for name, flag in given.items())
    raise ValueError(f"{said} contradict each other; {mend}")


def resolve_update(train: bool, **flags: bool | None) -> bool:
    """Whether to update the statistics; defaults to `train`.

    Raises:
      TypeError: a flag is not a bool.
      ValueError: the flags are contradictory.

    >>> resolve_update(True, update=None), resolve_update(True, update=False)
    (True, False)
    """
    given = {name: flag for name, flag in flags.items() if flag is not None}
    check_train(train=train, **given)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{name}={flag}" for name, flag in given.items())
        raise ValueError(f"{said} contradict each other; give one, or equal values.")
    return bool(next(iter(given.values()), train))
