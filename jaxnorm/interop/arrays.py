"""Named arrays, as other libraries list them or in a file, and lossless casts."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnorm.interop.files.reading import read_weights

Arrays = Mapping[str, Any] | str | os.PathLike[str]


def as_arrays(state: Arrays) -> dict[str, np.ndarray]:
    """Returns the values of a mapping, or of a file, as NumPy arrays of numbers, by name.

    Arrays are converted to the byte order of the machine. Raises a TypeError that names the
    values that cannot be used: torch tensors, which may be on a device or require a
    gradient; Python objects, which would need unpickling; masked arrays, whose mask would
    be lost; and floats wider than float64, which JAX does not have.

    >>> as_arrays({"weight": [1.0, 2.0]})
    {'weight': array([1., 2.])}
    """
    if isinstance(state, str | os.PathLike):
        state = read_weights(state)
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state is {type(state).__name__}, but a mapping of names to arrays is "
            "expected, {name: tensor.numpy() for name, tensor in state_dict().items()}, or "
            "the path of a file of weights."
        )
    tensors = [name for name, value in state.items() if hasattr(value, "detach")]
    if tensors:
        raise TypeError(
            f"{_some(tensors)} are tensors, but arrays are expected; pass "
            "value.detach().cpu().numpy() for each, and for those in bfloat16, which NumPy "
            "does not have, value.detach().cpu().float().numpy()."
        )
    masked = [name for name, value in state.items() if np.ma.is_masked(value)]
    if masked:
        raise TypeError(
            f"{_some(masked)} are masked arrays, whose masked values are unknown; pass "
            "value.filled(0.0), or what they are to be."
        )
    arrays = {name: np.asarray(value) for name, value in state.items()}
    strange = [
        name
        for name, array in arrays.items()
        if not isinstance(name, str) or not _is_of_numbers(array.dtype)
    ]
    if strange:
        raise TypeError(
            f"{_some(strange)} are not named arrays of numbers; pass only the weights, "
            "as read_weights reads them from a file. Nothing is unpickled here."
        )
    wide = [name for name, array in arrays.items() if _is_wider_than_double(array.dtype)]
    if wide:
        raise TypeError(
            f"{_some(wide)} are wider than float64, the widest float of JAX; pass "
            "value.astype(np.float64) for each, which rounds."
        )
    return {
        name: array.astype(array.dtype.newbyteorder("="), copy=False)
        for name, array in arrays.items()
    }


def _is_of_numbers(dtype: np.dtype) -> bool:
    # Models have masks among their buffers, which are left out, or are masks here, too.
    return jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)


def _is_wider_than_double(dtype: np.dtype) -> bool:
    return dtype.itemsize > {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)


def _some(names: list[Any]) -> str:
    listed = ", ".join(repr(name) for name in names[:4])
    return listed if len(names) <= 4 else f"{listed} and {len(names) - 4} more"


def cast(array: np.ndarray, dtype: Any, lossy: bool = False) -> np.ndarray:
    """Casts an array to another dtype of its kind, without changing any value.

    With `lossy`, floats may be rounded, but not overflow. Raises a ValueError otherwise.

    >>> cast(np.array([0.5]), np.float16)
    array([0.5], dtype=float16)
    """
    if array.dtype == dtype:
        return array
    kinds = [
        [jnp.issubdtype(each, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)]
        for each in (array.dtype, dtype)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{array.dtype} is given, but {dtype} is expected")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
        same = (result.astype(array.dtype) == array) | (array != array)
    rounded = lossy and jnp.issubdtype(dtype, jnp.floating)
    rounded = rounded and bool((np.isfinite(result) | ~np.isfinite(array)).all())
    if not (rounded or same.all()):
        raise ValueError(f"some {array.dtype} values cannot be represented in {dtype}")
    return result


def to_jax(array: np.ndarray) -> Array:
    """Converts to a JAX array; a ValueError if its dtype is disabled in JAX.

    >>> to_jax(np.float32([1.0]))
    Array([1.], dtype=float32)
    """
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"{array.dtype} is disabled in JAX, which would truncate it; enable it with "
            'jax.config.update("jax_enable_x64", True), or pass .astype(np.float32)'
        )
    return jnp.asarray(array)
