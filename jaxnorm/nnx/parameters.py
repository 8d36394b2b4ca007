"""Parameters and options of NNX norms, from their variables and attributes."""

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
from jaxnorm._core.dtypes import accumulation_dtype, as_input
from jaxnorm._core.operands import conditioned
from jaxnorm._core.weights import one_weighting


def parameter(
    wanted: bool,
    init: Initializer,
    num_features: int,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    metadata: Mapping[str, Any],
) -> Any:
    """Creates a scale or bias of shape (num_features,), or None if it is not wanted."""
    if not wanted:
        return nnx.data(None)
    return nnx.Param(init(rngs.params(), (num_features,), dtype), **metadata)


def features_of(module: Any, x: Any, axis: Axis) -> tuple[int, ...]:
    """Returns the sizes of the feature axes of x, to which the variables are reshaped.

    Raises a ValueError if the module was constructed for another number of features.
    """
    features = sizes_of(x.shape, canonical_axes(axis, x.ndim))
    if math.prod(features) != module.num_features:
        raise ValueError(
            f"x of shape {x.shape} has {math.prod(features)} features along axis {axis}, "
            f"but {type(module).__name__} was constructed with num_features="
            f"{module.num_features}; use num_features={math.prod(features)}, or other "
            "feature axes."
        )
    return features


def shaped(array: Any, features: tuple[int, ...]) -> Any:
    """Reshapes an array to the feature axes; returns None and scalars unchanged."""
    return array if array is None or array.ndim == 0 else jnp.reshape(array, features)


def options(
    module: Any, mask: ArrayLike | None, weights: ArrayLike | None
) -> dict[str, Any]:
    """Returns the arguments, shared by all norms' functions, of a module and its call."""
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

    The module's promote_dtype casts the variables, but x is not widened: norms accumulate
    in float32 anyway, and x is stored for the derivative. The scale and bias of the call
    are applied after the module's own.

    Args:
      module: a norm.
      x: its input.
      feature_axes: feature axes of x.
      scale: scale given in the call, or None.
      bias: bias given in the call, or None.
      state: further variables for promote_dtype, before scale and bias; they do not widen
        the output.
    """
    x = as_input(x)
    features = features_of(module, x, feature_axes)
    # As in flax, promote_dtype receives no bias if the norm has none.
    names = [name for name in ("scale", "bias") if hasattr(module, name)]
    own = [getattr(module, name) for name in names]
    values = (None if each is None else each[...] for each in (*state, *own))
    promoted, *others = module.promote_dtype((x, *values), dtype=module.dtype)
    wide = [shaped(each, features) for each in others[-len(names) :]]
    parameters = dict(zip(names, wide, strict=True))
    gamma, beta = parameters.get("scale"), parameters.get("bias")
    widened = accumulation_dtype(x.dtype, promoted.dtype) == promoted.dtype
    x = x if widened else promoted
    combined = conditioned(x, feature_axes, (gamma, beta), (scale, bias))  # checks them
    dtype = canonicalize_dtype(promoted, gamma, beta, scale, bias, dtype=module.dtype)
    return x, *combined, dtype
