"""The dtype in which statistics are accumulated, and checks of inputs."""

import functools
import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

# What JAX passes to a custom rule: an array, a tracer, or a NumPy array for a constant.
Operand = Any


def accumulation_dtype(*dtypes: DTypeLike) -> np.dtype:
    """Returns the dtype of reductions and statistics: the finest given, at least float32.

    >>> accumulation_dtype(jnp.bfloat16), accumulation_dtype(jnp.float64)
    (dtype('float32'), dtype('float64'))
    """
    # NumPy's promotion, since strict promotion in JAX refuses to mix dtypes.
    return functools.reduce(np.promote_types, dtypes, np.dtype(np.float32))


def check_number(**named: Any) -> None:
    """Raises a TypeError unless each is a real number, known before tracing."""
    for name, value in named.items():
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{name}={value!r}, but a real number is expected; arrays and "
                "traced values cannot be checked, so give a Python float."
            )


def check_count(**named: Any) -> None:
    """Raises a TypeError unless each is an integer, and a ValueError if less than 1."""
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
    """Returns `x` as an array; raises a TypeError unless its dtype is real floating.

    Integers are not converted implicitly: the normalised values are not integers, and the
    floating dtype is the caller's choice.
    """
    if not isinstance(x, jax.Array):  # which asarray would copy: a second residual
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


def as_input(x: ArrayLike) -> Float[Array, "..."]:
    """Returns the input of a module as `as_floating` does; integers become float32.

    flax's modules take integers, such as the pixels of an image; the functions do not.
    """
    if not isinstance(x, jax.Array):
        x = jnp.asarray(x)
    is_whole = jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool
    return as_floating(x.astype(jnp.float32) if is_whole else x)


def as_operand(
    x: ArrayLike, dtype: DTypeLike | None
) -> tuple[Float[Array, "..."], np.dtype]:
    """Returns `x`, widened if y needs finer statistics, and the output dtype.

    Only a float64 output widens x: float32 statistics would not be precise enough for it.
    The output dtype defaults to `x.dtype`. Raises a TypeError if a dtype is not real
    floating.
    """
    x = as_floating(x)
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype={dtype}, but the output of a norm is real; give a floating dtype, or "
            "None for the dtype of x."
        )
    finest = accumulation_dtype(x.dtype, dtype)
    return (x if finest == accumulation_dtype(x.dtype) else x.astype(finest)), dtype
