"""In which dtype statistics are accumulated, and which inputs have one."""

import functools

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float


def accumulation_dtype(*dtypes: DTypeLike) -> np.dtype:
    """The dtype of reductions and statistics: the finest given, but at least float32.

    >>> accumulation_dtype(jnp.bfloat16), accumulation_dtype(jnp.float64)
    (dtype('float32'), dtype('float64'))
    """
    # numpy's promotion, for jax's refuses to mix dtypes when it is set to be strict.
    return functools.reduce(np.promote_types, dtypes, np.dtype(np.float32))


def as_floating(x: ArrayLike) -> Float[Array, "..."]:
    """`x` as an array, refused with a TypeError unless its dtype is a real floating one.

    Integers are not converted silently: a normalised integer is not an integer, and
    which float it should become is the caller's choice.
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(
            f"x has dtype {x.dtype}, but a real floating dtype is expected; "
            "normalise jnp.real(x) and jnp.imag(x), or jnp.abs(x), instead."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x has dtype {x.dtype}, but a floating dtype is expected; "
            "convert it first, as in x.astype(jnp.float32)."
        )
    return x
