"""One norm of another library, as jaxnorm has it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxnorm.interop.arrays import as_arrays, to_jax


@dataclass(frozen=True)
class Norm:
    """A norm of another library, as jaxnorm has it.

    Attributes:
      module: which of the modules in `jaxnorm.linen` and `jaxnorm.nnx` it is.
      options: the arguments with which that behaves as the norm did; NNX wants the number
        of features before them.
      params: its scale and bias, as far as it has them.
      batch_stats: its running statistics, likewise.
      unkept: arrays that have no place here, as they were, for the way back.
      rules: what was decided, and why.
    """

    module: str
    options: dict[str, Any]
    params: dict[str, Array]
    batch_stats: dict[str, Array] = field(default_factory=dict)
    unkept: dict[str, np.ndarray] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, dict[str, Array]]:
        """The variables of the Linen module."""
        found = {"params": self.params, "batch_stats": self.batch_stats}
        return {name: arrays for name, arrays in found.items() if arrays}


def below(state: Mapping[str, Any], prefix: str, separator: str) -> dict[str, np.ndarray]:
    """The arrays of one module, by their names in it.

    >>> below({"bn.weight": [1.0], "fc.weight": [2.0]}, "bn", ".")
    {'weight': array([1.])}
    """
    start = f"{prefix}{separator}" if prefix else ""
    found = {
        name.removeprefix(start): array
        for name, array in as_arrays(state).items()
        if name.startswith(start)
    }
    if prefix and not found:
        raise ValueError(
            f"no name starts with {start!r}; there are {', '.join(list(state)[:4])}, …; "
            "a norm without arrays takes an empty mapping and no prefix."
        )
    return found


def only(arrays: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises a ValueError if there are arrays of other names."""
    known = tuple(names)
    strange = [f"{name} {arrays[name].shape}" for name in arrays if name not in known]
    if strange:
        raise ValueError(
            f"left over: {', '.join(strange)}; of this norm {', '.join(known)} are "
            "expected; give those of the one norm alone, by its prefix."
        )


def renamed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Array]:
    """Those of the arrays that are in `names`, by their names here, all of one shape."""
    found = {ours: arrays[name] for name, ours in names.items() if name in arrays}
    shapes = {name: array.shape for name, array in found.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"the arrays have the shapes {shapes}, but those of one norm have the same; "
            "give those of one norm."
        )
    return {name: to_jax(array) for name, array in found.items()}


def both_statistics(statistics: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises a ValueError if there is only one of mean and variance."""
    if len(statistics) == 1:
        raise ValueError(
            f"there is only {next(iter(statistics))} of the running statistics; give "
            f"{' and '.join(names)}, or neither."
        )


def affine(params: Mapping[str, Any]) -> dict[str, bool]:
    """The arguments that say which parameters there are."""
    return {f"use_{name}": name in params for name in ("scale", "bias")}
