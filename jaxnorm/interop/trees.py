"""Nested variables as a flat table: Linen's by collections, NNX's without."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Path = tuple[Any, ...]
COLLECTIONS = ("params", "batch_stats")


def shown(path: Path) -> str:
    """A path as errors and reports show it.

    >>> shown(("params", "Dense_0", "kernel"))
    'params/Dense_0/kernel'
    """
    return "/".join(map(str, path))


def flat(template: Mapping[Any, Any], above: Path = ()) -> dict[Path, Any]:
    """The leaves of nested mappings by their paths.

    Raises a TypeError if one has no shape and dtype, as variables of NNX.

    >>> flat({"params": {"scale": np.ones(2)}})
    {('params', 'scale'): array([1., 1.])}
    """
    if not isinstance(template, Mapping):
        raise TypeError(
            f"the variables are {type(template).__name__}, but nested mappings are "
            "expected: those of model.init, or nnx.to_pure_dict(nnx.state(model))."
        )
    leaves = {}
    for name, value in template.items():
        path = (*above, name)
        if isinstance(value, Mapping):
            leaves |= flat(value, path)
        elif isinstance(value, jax.Array | jax.ShapeDtypeStruct | np.ndarray):
            leaves[path] = value
        else:
            raise TypeError(
                f"{shown(path)} is {type(value).__name__}, but an array or its shape is "
                "expected; of an NNX model give nnx.to_pure_dict(nnx.state(model)), and of "
                "boxed variables nn.meta.unbox(variables)."
            )
    return leaves


def nested(leaves: Mapping[Path, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """The leaves in plain dicts, nested as `like`.

    >>> nested({("params", "scale"): 2.0}, {"params": {"scale": 1.0, "none": {}}})
    {'params': {'scale': 2.0, 'none': {}}}
    """

    def filled(part: Any, path: Path) -> Any:
        if not isinstance(part, Mapping):
            return leaves[path]
        return {name: filled(value, (*path, name)) for name, value in part.items()}

    return filled(like, ())


def by_module(leaves: Mapping[Path, Any]) -> dict[tuple[str, ...], dict[str, Path]]:
    """The leaves of each module by their names: `found[module][name]` is a whole path.

    In Linen those of one module are in several collections, in NNX all in one place.

    >>> by_module({("params", "a", "scale"): 0, ("batch_stats", "a", "mean"): 0})
    {('a',): {'scale': ('params', 'a', 'scale'), 'mean': ('batch_stats', 'a', 'mean')}}
    """
    linen = any(path[0] == "params" and len(path) > 1 for path in leaves)
    found: dict[tuple[str, ...], dict[str, Path]] = {}
    for path in leaves:
        inner = path[1:] if linen and path[0] in COLLECTIONS else path
        *module, name = map(str, inner)
        found.setdefault(tuple(module), {})[name] = path
    return found
