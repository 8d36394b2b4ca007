"""Train or evaluate: one answer from all the flags a module was given."""

from typing import Any

import numpy as np


def check_flags(mend: str = "", /, **flags: Any) -> None:
    """Raises a TypeError unless each is True or False, and not a number in its place."""
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

    A flag whose name has `use_running_average` in it means the opposite of the others.

    Raises:
      TypeError: one is no bool.
      ValueError: none is given, or two contradict each other.

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
        raise ValueError(f"it is not said whether to train; {mend}")
    said = ", ".join(f"{name}={flag}" for name, flag in given.items())
    raise ValueError(f"{said} contradict each other; {mend}")


def resolve_update(train: bool, **flags: bool | None) -> bool:
    """Whether to update the statistics: as when training, unless a flag says otherwise.

    Raises:
      TypeError: one is no bool.
      ValueError: two flags contradict each other.

    >>> resolve_update(True, update=None), resolve_update(True, update=False)
    (True, False)
    """
    given = {name: flag for name, flag in flags.items() if flag is not None}
    check_train(train=train, **given)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{name}={flag}" for name, flag in given.items())
        raise ValueError(f"{said} contradict each other; say it once, or the same.")
    return bool(next(iter(given.values()), train))
