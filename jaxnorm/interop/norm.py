"""A single norm of another library, converted to jaxnorm."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxnorm._core.operands import check_epsilon
from jaxnorm.interop.arrays import Arrays, as_arrays, to_jax


@dataclass(frozen=True)
class Norm:
    """A norm of another library, converted to jaxnorm.

    Attributes:
      module: the name of its class in `jaxnorm.linen` and `jaxnorm.nnx`.
      options: the arguments with which the class behaves like the original norm; NNX takes
        the number of features before them.
      params: its scale and bias, if it has them.
      batch_stats: its running statistics, if it has them.
      unkept: arrays without a counterpart here, unchanged, for converting back.
      rules: what was decided, and why.
    """

    module: str
    options: dict[str, Any]
    params: dict[str, Array]
    batch_stats: dict[str, Array] = field(default_factory=dict)
    unkept: dict[str, np.ndarray] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_epsilon(self.options.get("epsilon", 0.0))

    @property
    def variables(self) -> dict[str, dict[str, Array]]:
        """The variables of the Linen module."""
        found = {"params": self.params, "batch_stats": self.batch_stats}
        return {name: arrays for name, arrays in found.items() if arrays}


def below(state: Arrays, prefix: str, separator: str) -> dict[str, np.ndarray]:
    """The arrays of one module, by their names within it.

    >>> below({"bn.weight": [1.0], "fc.weight": [2.0]}, "bn", ".")
    {'weight': array([1.])}
    """
    start = f"{prefix}{separator}" if prefix else ""
    arrays = as_arrays(state)
    found = {
        name.removeprefix(start): array
        for name, array in arrays.items()
        if name.startswith(start)
    }
    if prefix and not found:
        raise ValueError(
            f"no name starts with {start!r}, only {', '.join(list(arrays)[:4])}, …; "
            "for a norm without arrays, pass an empty mapping and no prefix."
        )
    return found


def only(arrays: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises a ValueError if there are arrays with other names."""
    known = tuple(names)
    strange = [f"{name} {arrays[name].shape}" for name in arrays if name not in known]
    if strange:
        raise ValueError(
            f"left over: {', '.join(strange)}; this norm has {', '.join(known)}; "
            "select the arrays of a single norm by its prefix."
        )


def renamed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Array]:
    """The arrays listed in `names`, by our names; all must have the same shape."""
    found = {ours: arrays[name] for name, ours in names.items() if name in arrays}
    shapes = {name: array.shape for name, array in found.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"the arrays have the shapes {shapes}, but all arrays of a norm have the same "
            "shape; pass the arrays of a single norm."
        )
    return {name: to_jax(array) for name, array in found.items()}


def both_statistics(statistics: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises a ValueError if there is only one of mean and variance."""
    if len(statistics) == 1:
        raise ValueError(
            f"only {next(iter(statistics))} is given of the running statistics; pass "
            f"{' and '.join(names)}, or neither."
        )


def affine(params: Mapping[str, Any]) -> dict[str, bool]:
    """The arguments that state which parameters the norm has."""
    return {f"use_{name}": name in params for name in ("scale", "bias")}
