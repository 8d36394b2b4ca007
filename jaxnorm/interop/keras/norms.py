"""Converts single norms between keras and jaxnorm."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnorm.interop.arrays import Arrays, as_arrays
from jaxnorm.interop.keras.listings import PARAMS, STATISTICS, weights_of
from jaxnorm.interop.norm import Norm, affine, both_statistics, only, renamed
from jaxnorm.statistics.averages import ema


def batch_normalization(
    weights: Arrays,
    layer: str = "",
    *,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    axis: int = -1,
    scale: bool = True,
    center: bool = True,
) -> Norm:
    """Converts BatchNormalization; momentum is a decay and the variance biased, as here.

    Args:
      weights: names to arrays, or a path: gamma, beta, moving_mean and moving_variance, in
        one of keras's listings.
      layer: the name of the layer, which precedes these names.
      momentum: as in keras: the weight of the old value.
      epsilon: as in keras.
      axis: the feature axis.
      scale: as in keras; used only for weights listed by position.
      center: as in keras; used only for weights listed by position.

    Returns:
      A Norm for `BatchNorm`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over or missing, such as those of renorm=True, or shapes
        differ; or momentum is outside [0, 1].

    >>> weights = {"bn/gamma": [2.0], "bn/moving_mean": [5.0], "bn/moving_variance": [4.0]}
    >>> weights = {name: jnp.array(value) for name, value in weights.items()}
    >>> norm = batch_normalization(weights, "bn")
    >>> norm.params, norm.batch_stats["mean"]
    ({'scale': Array([2.], dtype=float32)}, Array([5.], dtype=float32))
    """
    params, statistics = _read(weights, layer, scale, center, tuple(STATISTICS))
    if not statistics:
        raise ValueError(
            f"moving_mean and moving_variance of {layer or 'the norm'} are missing; pass "
            "them too: keras lists them among its non-trainable weights."
        )
    options = {
        "axis": axis,
        "epsilon": epsilon,
        "estimator": ema(momentum),
        **affine(params),
    }
    rules = ("gamma → scale, beta → bias, moving_mean → mean, moving_variance → var",)
    return Norm("BatchNorm", options, params, statistics, {}, rules)


def layer_normalization(
    weights: Arrays,
    layer: str = "",
    *,
    epsilon: float = 1e-3,
    axis: int | Sequence[int] = -1,
    scale: bool = True,
    center: bool = True,
) -> Norm:
    """Converts LayerNormalization over one or more axes.

    Args:
      weights: names to arrays, or a path: gamma and beta, in one of keras's listings.
      layer: the name of the layer, which precedes these names.
      epsilon: as in keras.
      axis: as in keras.
      scale: as in keras; used only for weights listed by position.
      center: as in keras; used only for weights listed by position.

    Returns:
      A Norm for `LayerNorm`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> layer_normalization({}).options["epsilon"]
    0.001
    """
    params, _ = _read(weights, layer, scale, center)
    return Norm("LayerNorm", {**_over(axis, epsilon), **affine(params)}, params)


def group_normalization(
    weights: Arrays,
    layer: str = "",
    *,
    groups: int = 32,
    epsilon: float = 1e-3,
    scale: bool = True,
    center: bool = True,
) -> Norm:
    """Converts GroupNormalization over the last axis; groups=-1 is a group per feature.

    Args:
      weights: names to arrays, or a path: gamma and beta, in one of keras's listings.
      layer: the name of the layer, which precedes these names.
      groups: as in keras.
      epsilon: as in keras.
      scale: as in keras; used only for weights listed by position.
      center: as in keras; used only for weights listed by position.

    Returns:
      A Norm for `GroupNorm`, or with groups=-1 for `InstanceNorm`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> group_normalization({}, groups=-1).module
    'InstanceNorm'
    """
    params, _ = _read(weights, layer, scale, center)
    options = {"epsilon": epsilon, **affine(params)}
    if groups == -1:
        return Norm("InstanceNorm", options, params)
    return Norm("GroupNorm", {"num_groups": groups, **options}, params)


def rms_normalization(
    weights: Arrays,
    layer: str = "",
    *,
    epsilon: float = 1e-6,
    axis: int | Sequence[int] = -1,
) -> Norm:
    """Converts RMSNormalization over one or more axes.

    Args:
      weights: names to arrays, or a path: a scale, in one of keras's listings.
      layer: the name of the layer, which precedes that name.
      epsilon: as in keras.
      axis: as in keras.

    Returns:
      A Norm for `RMSNorm`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over.

    >>> rms_normalization({"rms/scale": jnp.ones(2)}, "rms").options["use_scale"]
    True
    """
    arrays = weights_of(as_arrays(weights), layer, ("scale",))
    only(arrays, ("scale",))
    params = renamed(arrays, PARAMS)
    options = {**_over(axis, epsilon), "use_scale": "scale" in params}
    return Norm("RMSNorm", options, params)


def to_weights(norm: Norm, layer: str = "") -> dict[str, np.ndarray]:
    """Returns the arrays of a norm by keras's names, in the order of `layer.set_weights`.

    Args:
      norm: the result of `batch_normalization` or another function here, perhaps with
        trained params and batch_stats put in by `dataclasses.replace`.
      layer: the name of the layer, which precedes the names.

    >>> norm = Norm("RMSNorm", {}, {"scale": jnp.ones(2)})
    >>> to_weights(norm, "rms")
    {'rms/scale': array([1., 1.], dtype=float32)}
    """
    ours = {**norm.params, **norm.batch_stats}
    scale = "scale" if norm.module == "RMSNorm" else "gamma"
    names = {scale: "scale", "beta": "bias", **STATISTICS}
    start = f"{layer}/" if layer else ""
    return {
        start + name: np.array(ours[slot]) for name, slot in names.items() if slot in ours
    }


def _read(
    weights: Arrays,
    layer: str,
    scale: bool,
    center: bool,
    statistics: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of a norm and its statistics, by our names."""
    has = ("gamma",) * scale + ("beta",) * center + statistics
    arrays = weights_of(as_arrays(weights), layer, has)
    only(arrays, ("gamma", "beta", *statistics))
    renamed(arrays, PARAMS | STATISTICS)  # checks that they have one shape
    found = renamed(arrays, STATISTICS)
    both_statistics(found, STATISTICS)
    return renamed(arrays, PARAMS), found


def _over(axis: int | Sequence[int], epsilon: float) -> dict[str, Any]:
    axes = axis if isinstance(axis, int) else tuple(sorted(axis))
    return {"reduction_axes": axes, "feature_axes": axes, "epsilon": epsilon}
