"""Nested variables as flat dicts: Linen's by collection, NNX's without collections."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Path = tuple[Any, ...]
COLLECTIONS = ("params", "batch_stats")


def shown(path: Path) -> str:
    """A path as shown in errors and reports.

    >>> shown(("params", "Dense_0", "kernel"))
    'params/Dense_0/kernel'
    """
    return "/".join(map(str, path))


def flat(template: Mapping[Any, Any], above: Path = ()) -> dict[Path, Any]:
    """The leaves of nested mappings, by path.

    Raises a TypeError if a leaf has no shape and dtype, such as an NNX variable.

    >>> flat({"params": {"scale": np.ones(2)}})
    {('params', 'scale'): array([1., 1.])}
    """
    if not isinstance(template, Mapping):
        raise TypeError(
            f"the variables are {type(template).__name__}, but nested mappings are "
            "expected, from model.init or nnx.to_pure_dict(nnx.state(model))."
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
                "expected; for an NNX model pass nnx.to_pure_dict(nnx.state(model)), for "
                "boxed variables nn.meta.unbox(variables)."
            )
    return leaves


def nested(leaves: Mapping[Path, Any], like: Mapping[Any, Any]) -> dict[Any, Any]:
    """Nests the leaves in plain dicts, with the structure of `like`.

    >>> nested({("params", "scale"): 2.0}, {"params": {"scale": 1.0, "none": {}}})
    {'params': {'scale': 2.0, 'none': {}}}
    """

    def filled(part: Any, path: Path) -> Any:
        if not isinstance(part, Mapping):
            return leaves[path]
        return {name: filled(value, (*path, name)) for name, value in part.items()}

    return filled(like, ())


def by_module(leaves: Mapping[Path, Any]) -> dict[tuple[str, ...], dict[str, Path]]:
    """Groups the leaves by module: `found[module][name]` is the full path.

    In Linen a module's leaves are in several collections, in NNX in one place.

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
