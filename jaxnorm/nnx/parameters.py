"""What every NNX norm does with its variables and attributes."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype
from flax.typing import Initializer
from jax.typing import DTypeLike

from jaxnorm._core.axes import Axis, canonical_axes, take
from jaxnorm._core.dtypes import accumulation_dtype, as_floating


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
    features = take(x.shape, canonical_axes(axis, x.ndim))
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


def promote(module: Any, x: Any, *variables: Any) -> tuple[Any, ...]:
    """X, the dtype of the output, and the values of the variables, None being None.

    They are as the module's promote_dtype makes them, but for an x that it would widen: a
    norm accumulates in float32 anyway, and keeps x for its derivative.
    """
    x = as_floating(x)
    values = (None if each is None else each[...] for each in variables)
    promoted, *others = module.promote_dtype((x, *values), dtype=module.dtype)
    # Scale and bias come last. Running statistics, before them, do not widen the output.
    dtype = canonicalize_dtype(promoted, *others[-2:], dtype=module.dtype)
    widened = accumulation_dtype(x.dtype, promoted.dtype) == promoted.dtype
    return x if widened else promoted, dtype, *others
