"""Arrays by their names, as other libraries list them, and casts that lose nothing."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def as_arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a mapping of names to what NumPy takes for arrays of numbers.

    Raises a TypeError that names all that are none: tensors of torch, which may be on a
    device or want a gradient, and Python objects, which only unpickling would make.

    >>> as_arrays({"weight": [1.0, 2.0]})
    {'weight': array([1., 2.])}
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state is {type(state).__name__}, but a mapping of names to arrays is "
            "expected, as {name: tensor.numpy() for name, tensor in state_dict().items()}."
        )
    tensors = [name for name, value in state.items() if hasattr(value, "detach")]
    if tensors:
        raise TypeError(
            f"{_some(tensors)} are tensors, but arrays are expected; give "
            "value.detach().cpu().numpy() of each."
        )
    arrays = {name: np.asarray(value) for name, value in state.items()}
    strange = [
        name
        for name, array in arrays.items()
        if not isinstance(name, str) or not jnp.issubdtype(array.dtype, jnp.number)
    ]
    if strange:
        raise TypeError(
            f"{_some(strange)} are no arrays of numbers by a name; give the weights alone, "
            "as from safetensors or h5py. Nothing is unpickled here."
        )
    return arrays


def _some(names: list[Any]) -> str:
    listed = ", ".join(repr(name) for name in names[:4])
    return listed if len(names) <= 4 else f"{listed} and {len(names) - 4} more"


def cast(array: np.ndarray, dtype: Any, lossy: bool = False) -> np.ndarray:
    """`array` in another dtype; a ValueError if that is no float as it is, or loses.

    >>> cast(np.array([0.5]), np.float16)
    array([0.5], dtype=float16)
    """
    if array.dtype == dtype:
        return array
    kinds = [
        [jnp.issubdtype(each, kind) for kind in (jnp.floating, jnp.integer)]
        for each in (array.dtype, dtype)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{array.dtype} is no {dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
        same = (result.astype(array.dtype) == array) | (array != array)
    rounded = lossy and jnp.issubdtype(dtype, jnp.floating)
    rounded = rounded and bool((np.isfinite(result) | ~np.isfinite(array)).all())
    if not (rounded or same.all()):
        raise ValueError(f"some of the {array.dtype} values have no place in {dtype}")
    return result


def to_jax(array: np.ndarray) -> Array:
    """The same array in JAX; a ValueError if its dtype is switched off there.

    >>> to_jax(np.float32([1.0]))
    Array([1.], dtype=float32)
    """
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"{array.dtype} is switched off in JAX, which would narrow it; switch it on by "
            'jax.config.update("jax_enable_x64", True), or give .astype(np.float32)'
        )
    return jnp.asarray(array)
