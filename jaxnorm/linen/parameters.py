"""What every Linen norm does with its attributes."""

from typing import Any


def parameter(module: Any, name: str, shape: tuple[int, ...]) -> Any:
    """The parameter "scale" or "bias" of a norm, or None if its attributes want none."""
    if not getattr(module, f"use_{name}"):
        return None
    return module.param(name, getattr(module, f"{name}_init"), shape, module.param_dtype)


def mapped_axes(module: Any) -> dict[str, Any]:
    """The arguments for mapped axes: none while initialising, which is outside of them."""
    if module.is_initializing():
        return {}
    return {
        "axis_name": module.axis_name,
        "axis_index_groups": module.axis_index_groups,
    }
