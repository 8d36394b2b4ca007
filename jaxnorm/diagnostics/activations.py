"""Where activations are saturated: where what goes in hardly changes what comes out."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Between these an activation is not saturated.

    Attributes:
      low: at this and below it is.
      high: at this and above it is.
    """

    low: float
    high: float

    @property
    def one_sided(self) -> bool:
        """Whether it saturates on one side only, where half of all outputs may well lie."""
        return math.isinf(self.low) or math.isinf(self.high)


# Of all norms, or by the paths of some, as pairs.
Activation = str | tuple[tuple[str, str], ...] | None

# Beyond these its derivative is below 0.071 times its greatest, for good; of what is
# piecewise linear it is 0. That is |z| = 4 for a sigmoid, and so |z| = 2 for tanh.
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
    """The range of an activation of this name.

    Raises a ValueError for a name that is not known.

    >>> range_of("tanh")
    Range(low=-2.0, high=2.0)
    """
    if activation not in RANGES:
        raise ValueError(
            f"activation={activation!r}, but one of {', '.join(RANGES)} is expected; leave "
            "it out where another follows the norm."
        )
    return RANGES[activation]


def as_activation(activation: Any) -> Activation:
    """What a user gave, if it names activations; a mapping as pairs, which are hashable.

    Raises a TypeError for what is no name, a ValueError for one that is not known.
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
                "mapping of the norms' paths to names."
            )
        if name is not None:
            range_of(name)
    return activation


def active_range(activation: Activation, path: str) -> Range | None:
    """The range of the activation behind the norm of this path, if it is known."""
    if isinstance(activation, tuple):
        activation = dict(activation).get(path)
    return None if activation is None else range_of(activation)
