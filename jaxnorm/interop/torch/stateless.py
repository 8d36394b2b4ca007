"""Converts torch's norms without running statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxnorm._core.dtypes import accumulation_dtype
from jaxnorm.interop.arrays import Arrays
from jaxnorm.interop.norm import Norm, affine
from jaxnorm.interop.torch.names import arrays_of


def layer_norm(
    state: Arrays, prefix: str = "", *, epsilon: float = 1e-5, rank: int = 1
) -> Norm:
    """Converts LayerNorm over the last axes of x, as many as its weight has.

    Args:
      state: names to arrays, or a path: weight and bias, if the norm has them.
      prefix: precedes these names, followed by a dot.
      epsilon: as in torch.
      rank: the length of torch's normalized_shape, if there is no weight.

    Returns:
      A Norm for `LayerNorm`, with the same axes for moments and parameters. If x has its
      channels last, a weight over (C, …) must be permuted: see `channels_last`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> layer_norm({"weight": np.ones((2, 3), np.float32)}).options["feature_axes"]
    (-2, -1)
    """
    _, params, _ = arrays_of(state, prefix)
    options = {**_last_axes(params, rank, epsilon), **affine(params)}
    return Norm("LayerNorm", options, params)


def group_norm(
    state: Arrays, prefix: str = "", *, num_groups: int, epsilon: float = 1e-5
) -> Norm:
    """Converts GroupNorm; its groups are of neighbouring channels, as here.

    Args:
      state: names to arrays, or a path: weight and bias, if the norm has them.
      prefix: precedes these names, followed by a dot.
      num_groups: as in torch.
      epsilon: as in torch.

    Returns:
      A Norm for `GroupNorm`, for an x with channels last.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> group_norm({}, num_groups=2).options["num_groups"]
    2
    """
    _, params, _ = arrays_of(state, prefix)
    options = {"num_groups": num_groups, "epsilon": epsilon, **affine(params)}
    return Norm("GroupNorm", options, params)


def rms_norm(
    state: Arrays,
    prefix: str = "",
    *,
    epsilon: float | None = None,
    rank: int = 1,
    dtype: DTypeLike = np.float32,
) -> Norm:
    """Converts RMSNorm over the last axes of x, as many as its weight has.

    Args:
      state: names to arrays, or a path: a weight, if the norm has one.
      prefix: precedes that name, followed by a dot.
      epsilon: as in torch; defaults to the distance from 1 to the next float in `dtype`, or
        in float32 if `dtype` is coarser.
      rank: the length of torch's normalized_shape, if there is no weight.
      dtype: the dtype of x, on which the default epsilon depends.

    Returns:
      A Norm for `RMSNorm`.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over.

    >>> rms_norm({"weight": np.ones(2, np.float32)}).options["epsilon"]
    1.1920928955078125e-07
    """
    _, params, _ = arrays_of(state, prefix, names=("weight",))
    finest = float(np.finfo(accumulation_dtype(dtype)).eps)
    options = _last_axes(params, rank, finest if epsilon is None else epsilon)
    return Norm("RMSNorm", {**options, "use_scale": "scale" in params}, params)


def _last_axes(params: Mapping[str, Any], rank: int, epsilon: float) -> dict[str, Any]:
    rank = next((array.ndim for array in params.values()), rank)
    axes = -1 if rank == 1 else tuple(range(-rank, 0))
    return {"reduction_axes": axes, "feature_axes": axes, "epsilon": epsilon}
