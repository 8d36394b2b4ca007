"""What every NNX norm does with its variables and attributes."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype
from flax.typing import Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array

from jaxnorm._core.axes import Axis, canonical_axes, sizes_of
from jaxnorm._core.dtypes import accumulation_dtype, as_floating
from jaxnorm._core.normalization import conditioned
from jaxnorm._core.weights import one_weighting


def parameter(
    wanted: bool,
    init: Initializer,
    num_features: int,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    metadata: Mapping[str, Any],
) -> Any:
    """A scale or bias of shape (num_features,), or None in its place if none is wanted."""
    if not wanted:
        return nnx.data(None)
    return nnx.Param(init(rngs.params(), (num_features,), dtype), **metadata)


def features_of(module: Any, x: Any, axis: Axis) -> tuple[int, ...]:
    """The sizes of the feature axes of x, over which the module's variables are laid.

    Raises a ValueError if the module was made for another number of features.
    """
    features = sizes_of(x.shape, canonical_axes(axis, x.ndim))
    if math.prod(features) != module.num_features:
        raise ValueError(
            f"x has shape {x.shape}, and so {math.prod(features)} features along axis "
            f"{axis}, but {type(module).__name__} was made with num_features="
            f"{module.num_features}; make it with num_features={math.prod(features)}, or "
            "name the feature axes."
        )
    return features


def shaped(array: Any, features: tuple[int, ...]) -> Any:
    """An array of shape (num_features,) laid over the feature axes; None or () as it is."""
    return array if array is None or array.ndim == 0 else jnp.reshape(array, features)


def options(
    module: Any, mask: ArrayLike | None, weights: ArrayLike | None
) -> dict[str, Any]:
    """The arguments that the function of every norm takes from the module and its call."""
    return {
        "epsilon": module.epsilon,
        "weights": one_weighting(mask, weights),
        "rounding": module.rounding,
        "axis_name": module.axis_name,
        "axis_index_groups": module.axis_index_groups,
    }


def operands(
    module: Any, x: Any, feature_axes: Axis, scale: Any, bias: Any, state: Any = ()
) -> tuple[Array, Any, Any, Any]:
    """Returns x, scale, bias and the dtype of the output.

    The variables are as the module's promote_dtype makes them, but x is not widened: a
    norm accumulates in float32 anyway, and stores x for its derivative. The scale and bias
    of the call are applied after those of the module.

    Args:
      module: a norm.
      x: its input.
      feature_axes: of x.
      scale: of the call, or None.
      bias: of the call, or None.
      state: variables that promote_dtype is given too, before scale and bias; they do not
        widen the output.
    """
    x = as_floating(x)
    features = features_of(module, x, feature_axes)
    # As in flax, promote_dtype of a norm that has no bias is not given one.
    names = [name for name in ("scale", "bias") if hasattr(module, name)]
    own = [getattr(module, name) for name in names]
    values = (None if each is None else each[...] for each in (*state, *own))
    promoted, *others = module.promote_dtype((x, *values), dtype=module.dtype)
    wide = [shaped(each, features) for each in others[-len(names) :]]
    parameters = dict(zip(names, wide, strict=True))
    gamma, beta = parameters.get("scale"), parameters.get("bias")
    dtype = canonicalize_dtype(promoted, gamma, beta, scale, bias, dtype=module.dtype)
    widened = accumulation_dtype(x.dtype, promoted.dtype) == promoted.dtype
    x = x if widened else promoted
    return x, *conditioned(x, feature_axes, (gamma, beta), (scale, bias)), dtype
