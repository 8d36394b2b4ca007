"""The ranges outside which activations are saturated: inputs hardly change outputs."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The range in which an activation is not saturated.

    Attributes:
      low: it is saturated at and below this value.
      high: it is saturated at and above this value.
    """

    low: float
    high: float

    @property
    def one_sided(self) -> bool:
        """Whether it saturates on one side only, where half of all outputs is normal."""
        return math.isinf(self.low) or math.isinf(self.high)


# One name for all norms, or pairs of norm paths and names.
Activation = str | tuple[tuple[str, str], ...] | None

# Beyond these the derivative stays below 0.071 of its maximum; for piecewise linear
# activations it is 0. For a sigmoid that is |z| = 4, and hence |z| = 2 for tanh.
RANGES = {
    "relu": Range(0.0, math.inf),
    "relu6": Range(0.0, 6.0),
    "gelu": Range(-2.2, math.inf),
    "silu": Range(-3.5, math.inf),
    "swish": Range(-3.5, math.inf),
    "elu": Range(-2.65, math.inf),
    "softplus": Range(-2.58, math.inf),
    "sigmoid": Range(-4.0, 4.0),
    "tanh": Range(-2.0, 2.0),
    "hard_tanh": Range(-1.0, 1.0),
    "hard_sigmoid": Range(-3.0, 3.0),
}


def range_of(activation: str) -> Range:
    """The range of the activation with this name.

    Raises a ValueError for an unknown name.

    >>> range_of("tanh")
    Range(low=-2.0, high=2.0)
    """
    if activation not in RANGES:
        raise ValueError(
            f"activation={activation!r}, but one of {', '.join(RANGES)} is expected; omit "
            "it if the norm is followed by another activation."
        )
    return RANGES[activation]


def as_activation(activation: Any) -> Activation:
    """Checks that the argument names activations; returns a mapping as hashable pairs.

    Raises a TypeError if a name is not a string, a ValueError if it is unknown.
    """
    if isinstance(activation, Mapping):
        activation = tuple(sorted(activation.items()))
    names = (
        [name for _, name in activation] if isinstance(activation, tuple) else [activation]
    )
    for name in names:
        if name is not None and not isinstance(name, str):
            raise TypeError(
                f"activation={activation!r}, but a name is expected, such as 'relu', or a "
                "mapping of norm paths to names."
            )
        if name is not None:
            range_of(name)
    return activation


def active_range(activation: Activation, path: str) -> Range | None:
    """The range of the activation after the norm with this path, if it is known."""
    if isinstance(activation, tuple):
        activation = dict(activation).get(path)
    return None if activation is None else range_of(activation)
