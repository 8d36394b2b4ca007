"""In which dtype statistics are accumulated, and which inputs have one."""

import functools
import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

# What JAX passes to a rule of ours: an array, a tracer, or NumPy's array for a constant.
Operand = Any


def accumulation_dtype(*dtypes: DTypeLike) -> np.dtype:
    """The dtype of reductions and statistics: the finest given, but at least float32.

    >>> accumulation_dtype(jnp.bfloat16), accumulation_dtype(jnp.float64)
    (dtype('float32'), dtype('float64'))
    """
    # numpy's promotion, for jax's refuses to mix dtypes when it is set to be strict.
    return functools.reduce(np.promote_types, dtypes, np.dtype(np.float32))


def check_number(**named: Any) -> None:
    """Raises a TypeError unless each is a real number, known before tracing."""
    for name, value in named.items():
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{name}={value!r}, but a real number is expected; an array, or what "
                "jax.jit traces, cannot be checked, so give a Python float."
            )


def check_count(**named: Any) -> None:
    """Raises a TypeError unless each is an integer, a ValueError if it is less than 1."""
    for name, value in named.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(
                f"{name}={value!r}, but a whole number is expected, known before tracing; "
                "give a Python int."
            ) from None
        if number < 1:
            raise ValueError(f"{name}={value}, but it must be at least 1.")


def as_floating(x: ArrayLike, name: str = "x") -> Float[Array, "..."]:
    """`x` as an array, refused with a TypeError unless its dtype is a real floating one.

    Integers are not converted silently: a normalised integer is not an integer, and
    which float it should become is the caller's choice.
    """
    if not isinstance(x, jax.Array):  # which asarray would copy, to be kept once more
        x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(
            f"{name} has dtype {x.dtype}, but a real floating dtype is expected; "
            f"give jnp.real({name}) and jnp.imag({name}), or jnp.abs({name}), instead."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} has dtype {x.dtype}, but a floating dtype is expected; "
            f"convert it first, as in {name}.astype(jnp.float32)."
        )
    return x


def as_operand(
    x: ArrayLike, dtype: DTypeLike | None
) -> tuple[Float[Array, "..."], np.dtype]:
    """`x` as it is to be accumulated, in its own dtype if that does, and the dtype of y.

    Only a float64 output changes x: float32 statistics would not be fine enough for it.
    Raises a TypeError if one of the dtypes is not real floating; None is that of x.
    """
    x = as_floating(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype={dtype}, but the output of a norm is real; give a floating dtype, or "
            "none for that of x."
        )
    finest = accumulation_dtype(x.dtype, dtype)
    return (x if finest == accumulation_dtype(x.dtype) else x.astype(finest)), dtype
