"""The backward pass of rows on a TPU: blocks of rows, one after another."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array

from jaxnorm._core.kernels.row import gradient_of_rows

VMEM = 12 * 2**20  # bytes for a block, out of 16 MiB; the rest is for its vectors


def pull_back(
    x: Array,
    scale: Array,
    g: Array,
    *,
    epsilon: float,
    about_zero: bool,
    has_bias: bool,
    interpret: Any = False,
) -> tuple[Array, ...]:
    """Returns the gradients of x, scale and bias; reads x and g once, and writes dx once.

    Args:
      x: (rows, features).
      scale: (features,), float32.
      g: the cotangent of y, with the shape of x.
      epsilon: ε.
      about_zero: whether to use 0 in place of the mean.
      has_bias: whether there is a bias.
      interpret: passed to `pallas_call`, for tests on a CPU.
    """
    number, features = x.shape
    rows = rows_of_a_block(number, features, x.dtype.itemsize + g.dtype.itemsize)
    block = pl.BlockSpec((rows, features), lambda i: (i, 0))
    vector = pl.BlockSpec((1, features), lambda i: (0, 0))
    total = jax.ShapeDtypeStruct((1, features), jnp.float32)
    totals = 2 if has_bias else 1
    dx, *sums = pl.pallas_call(
        functools.partial(_kernel, epsilon=epsilon, about_zero=about_zero),
        grid=(number // rows,),
        in_specs=[block, vector, block],
        out_specs=[block, *[vector] * totals],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype), *[total] * totals],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
    )(x, scale.reshape(1, -1), g)
    return dx, *(each[0] for each in sums)


def rows_of_a_block(number: int, features: int, itemsize: int) -> int:
    """Returns how many rows fit into VMEM, twice, with their float32 intermediates.

    >>> rows_of_a_block(8192, 4096, itemsize=4), rows_of_a_block(8192, 4096, itemsize=8)
    (64, 64)
    """
    most = VMEM // (features * (3 * itemsize + 4 * 4))
    return math.gcd(number, min(256, 2 ** (most.bit_length() - 1)))


def _kernel(x: Any, scale: Any, g: Any, dx: Any, *sums: Any, **options: Any) -> None:
    wide = g[...].astype(jnp.float32)
    found, normal = gradient_of_rows(
        x[...].astype(jnp.float32),
        wide * scale[...],
        lambda rows: jnp.mean(rows, 1, keepdims=True),
        **options,
    )
    dx[...] = found.astype(dx.dtype)

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        for each in sums:
            each[...] = jnp.zeros_like(each)

    for each, values in zip(sums, (wide * normal, wide), strict=False):
        each[...] += jnp.sum(values, 0, keepdims=True)
