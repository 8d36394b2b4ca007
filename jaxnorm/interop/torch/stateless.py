"""The norms of torch without running statistics, each as jaxnorm's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxnorm._core.dtypes import accumulation_dtype
from jaxnorm.interop.norm import Norm, affine
from jaxnorm.interop.torch.names import arrays_of


def layer_norm(
    state: Mapping[str, Any], prefix: str = "", *, epsilon: float = 1e-5, rank: int = 1
) -> Norm:
    """LayerNorm over the last axes of x, as many as its weight has.

    Args:
      state: names to arrays: weight and bias, each where the norm has it.
      prefix: what comes before these names and a dot.
      epsilon: as given to torch.
      rank: the length of torch's normalized_shape, where there is no weight to tell.

    Returns:
      A Norm for `LayerNorm`, which takes the same axes for moments and parameters. For an
      x with channels last, whose weight (C, …) must be turned, see `channels_last`.

    Raises:
      TypeError: a value is no array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> layer_norm({"weight": np.ones((2, 3), np.float32)}).options["feature_axes"]
    (-2, -1)
    """
    _, params, _ = arrays_of(state, prefix)
    options = {**_last_axes(params, rank, epsilon), **affine(params)}
    return Norm("LayerNorm", options, params)


def group_norm(
    state: Mapping[str, Any], prefix: str = "", *, num_groups: int, epsilon: float = 1e-5
) -> Norm:
    """GroupNorm, whose groups are of neighbouring channels as here.

    Args:
      state: names to arrays: weight and bias, each where the norm has it.
      prefix: what comes before these names and a dot.
      num_groups: as given to torch.
      epsilon: as given to torch.

    Returns:
      A Norm for `GroupNorm`, for an x with channels last.

    Raises:
      TypeError: a value is no array of numbers.
      ValueError: names are left over, or shapes differ.

    >>> group_norm({}, num_groups=2).options["num_groups"]
    2
    """
    _, params, _ = arrays_of(state, prefix)
    options = {"num_groups": num_groups, "epsilon": epsilon, **affine(params)}
    return Norm("GroupNorm", options, params)


def rms_norm(
    state: Mapping[str, Any],
    prefix: str = "",
    *,
    epsilon: float | None = None,
    rank: int = 1,
    dtype: DTypeLike = np.float32,
) -> Norm:
    """RMSNorm over the last axes of x, as many as its weight has.

    Args:
      state: names to arrays: a weight, where the norm has it.
      prefix: what comes before that name and a dot.
      epsilon: as given to torch; None is the distance from 1 to the next float, of float32
        for a coarser x too.
      rank: the length of torch's normalized_shape, where there is no weight to tell.
      dtype: of the x that it will get, which an epsilon of None depends on.

    Returns:
      A Norm for `RMSNorm`.

    Raises:
      TypeError: a value is no array of numbers.
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
