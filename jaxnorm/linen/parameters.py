"""Parameters and options of Linen norms, from their attributes."""

from typing import Any

from flax.linen.dtypes import canonicalize_dtype
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.axes import Axis, canonical_axes, sizes_of
from jaxnorm._core.operands import conditioned
from jaxnorm._core.weights import one_weighting


def parameter(module: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Returns the parameter "scale" or "bias" of a norm; None if it is disabled."""
    if not getattr(module, f"use_{name}", False):
        return None
    return module.param(name, getattr(module, f"{name}_init"), shape, module.param_dtype)


def affine(
    module: Any, x: Array, feature_axes: Axis, scale: Any, bias: Any
) -> tuple[Any, Any, Any]:
    """Returns scale, bias and the dtype of the output.

    The scale and bias of the call are applied after the parameters of the module.
    """
    features = sizes_of(x.shape, canonical_axes(feature_axes, x.ndim))
    own = parameter(module, "scale", features), parameter(module, "bias", features)
    combined = conditioned(x, feature_axes, own, (scale, bias))  # which checks them
    dtype = canonicalize_dtype(x, *own, scale, bias, dtype=module.dtype)
    return *combined, dtype


def options(
    module: Any, mask: ArrayLike | None, weights: ArrayLike | None
) -> dict[str, Any]:
    """Returns the arguments, shared by all norms' functions, of a module and its call.

    Mapped axes are omitted during initialisation, which happens outside of them.
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
