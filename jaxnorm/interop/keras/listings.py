"""How keras lists weights: by name, or by position in a layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PARAMS = {"gamma": "scale", "scale": "scale", "beta": "bias"}
STATISTICS = {"moving_mean": "mean", "moving_variance": "var"}
KERNELS = {
    "kernel": "kernel",
    "depthwise_kernel": "kernel",
    "pointwise_kernel": "kernel",
    "embeddings": "embedding",
    "bias": "bias",
}
SLOTS = PARAMS | STATISTICS | KERNELS


def layers_of(weights: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """The layer of each weight and its name within the layer, for every kind of listing.

        "bn/gamma"                          as weight.path in Keras 3
        "bn/bn/gamma:0"                     in a .h5 file, below "model_weights" or not
        "layers/batch_normalization/vars/0" in a .weights.h5 file of Keras 3

    A separable convolution is listed as two layers, "…/depthwise" and "…/pointwise", as it
    needs two here; the bias belongs to the latter.

    >>> layers_of({"bn/bn/gamma:0": np.ones(1), "layers/dense/vars/0": np.ones((1, 1))})
    {'bn/bn/gamma:0': ('bn', 'gamma'), 'layers/dense/vars/0': ('dense', '0')}
    """
    found = {name: _layer_of(name) for name in weights}
    ranks: dict[str, dict[str, int]] = {}
    for name, (layer, leaf) in found.items():
        ranks.setdefault(layer, {})[leaf] = np.ndim(weights[name])
    separable = {layer for layer, each in ranks.items() if _is_separable(each)}
    return {
        name: _separated(layer, leaf) if layer in separable else (layer, leaf)
        for name, (layer, leaf) in found.items()
    }


def _layer_of(name: str) -> tuple[str, str]:
    *parts, leaf = name.removesuffix(":0").split("/")
    if parts and parts[0] == "model_weights":
        parts = parts[1:]
    if parts and parts[-1] == "vars" and leaf.isdecimal():
        return "/".join(each for each in parts[:-1] if each != "layers"), leaf
    # A .h5 file has each weight's full name below a group with the layer's name.
    again = [i for i, each in enumerate(parts) if i and each == parts[0]]
    parts = parts[again[-1] :] if again else parts
    return "/".join(parts), leaf


def _is_separable(ranks: Mapping[str, int]) -> bool:
    """Tells by the names, or by two kernels where other layers have a kernel and a bias."""
    named = {"depthwise_kernel", "pointwise_kernel"} <= set(ranks)
    return named or (ranks.get("0", 0) > 2 and ranks.get("1", 0) > 2)


def _separated(layer: str, leaf: str) -> tuple[str, str]:
    if leaf in ("0", "depthwise_kernel"):
        return f"{layer}/depthwise", "kernel"
    return f"{layer}/pointwise", "kernel" if leaf in ("1", "pointwise_kernel") else "bias"


def weights_of(
    weights: Mapping[str, Any], layer: str, positions: tuple[str, ...]
) -> dict[str, Any]:
    """The weights of one layer by name; `positions` names those listed by position.

    Raises a ValueError if there is no such layer, or its number of positions differs.

    >>> weights_of({"layers/bn/vars/0": np.ones(1)}, "bn", ("beta",))
    {'beta': array([1.])}
    """
    layers = layers_of(weights)
    found = {leaf: weights[name] for name, (each, leaf) in layers.items() if each == layer}
    if layer and not found:
        others = sorted({each for each, _ in layers.values()})
        raise ValueError(
            f"there is no layer {layer!r}; choose one of {', '.join(others[:6])}."
        )
    if not any(leaf.isdecimal() for leaf in found):
        return found
    if len(found) != len(positions):
        raise ValueError(
            f"{layer} has {len(found)} weights by position, but {len(positions)} are "
            f"expected, {', '.join(positions)}; set scale= and center= as in the layer."
        )
    return {positions[int(leaf)]: array for leaf, array in found.items()}
