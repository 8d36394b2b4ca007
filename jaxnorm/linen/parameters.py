"""What every Linen norm does with its attributes."""

from typing import Any

from flax.linen.dtypes import canonicalize_dtype
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.axes import Axis, canonical_axes, sizes_of
from jaxnorm._core.normalization import conditioned
from jaxnorm._core.weights import one_weighting


def parameter(module: Any, name: str, shape: tuple[int, ...]) -> Any:
    """The parameter "scale" or "bias" of a norm, or None if its attributes want none."""
    if not getattr(module, f"use_{name}", False):
        return None
    return module.param(name, getattr(module, f"{name}_init"), shape, module.param_dtype)


def affine(
    module: Any, x: Array, feature_axes: Axis, scale: Any, bias: Any
) -> tuple[Any, Any, Any]:
    """Scale, bias and the dtype of the output.

    The scale and bias of the call are applied after the parameters of the module.
    """
    features = sizes_of(x.shape, canonical_axes(feature_axes, x.ndim))
    own = parameter(module, "scale", features), parameter(module, "bias", features)
    dtype = canonicalize_dtype(x, *own, scale, bias, dtype=module.dtype)
    return *conditioned(x, feature_axes, own, (scale, bias)), dtype


def options(
    module: Any, mask: ArrayLike | None, weights: ArrayLike | None
) -> dict[str, Any]:
    """The arguments that the function of every norm takes from the module and its call.

    Mapped axes are left out while initialising, which happens outside of them.
    """
    mapped = {
        "axis_name": module.axis_name,
        "axis_index_groups": module.axis_index_groups,
    }
    return {
        "epsilon": module.epsilon,
        "weights": one_weighting(mask, weights),
        "rounding": module.rounding,
        **({} if module.is_initializing() else mapped),
    }
