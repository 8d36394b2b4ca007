"""The backward pass of rows on a GPU: a fixed number of programs of one warpgroup each."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array

from jaxnorm._core.kernels.row import gradient_of_rows

# An H100 has this many. Each of its programs sums its rows' gradients of scale and bias in
# registers, so that few partial sums are left.
MULTIPROCESSORS = 132
# Programs for short rows wait for memory, so a multiprocessor runs as many at a time as
# read this many features; but no more, and no fewer, than these. Timed on an H100.
AT_A_TIME, FEWEST, MOST = 2**13, 2, 16


def pull_back(
    x: Array,
    scale: Array,
    g: Array,
    *,
    epsilon: float,
    about_zero: bool,
    has_bias: bool,
) -> tuple[Array, ...]:
    """Returns the gradients of x, scale and bias; reads x and g once, and writes dx once.

    Args:
      x: (rows, features).
      scale: (features,), float32.
      g: the cotangent of y, with the shape of x.
      epsilon: ε.
      about_zero: whether to use 0 in place of the mean.
      has_bias: whether there is a bias.
    """
    number, features = x.shape
    programs = min(number_of_programs(features), number)
    partial = jax.ShapeDtypeStruct((programs, features), jnp.float32)
    kernel = plgpu.kernel(
        functools.partial(_kernel, epsilon=epsilon, about_zero=about_zero),
        out_type=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            *[partial] * (2 if has_bias else 1),
        ],
        grid=(programs,),
        grid_names=("program",),
    )
    dx, *sums = kernel(x, scale, g)
    return dx, *(each.sum(0) for each in sums)


def number_of_programs(features: int) -> int:
    """Returns how many programs share the rows.

    >>> number_of_programs(4096), number_of_programs(768), number_of_programs(256)
    (264, 1056, 2112)
    """
    power_of_two = 1 << ((AT_A_TIME // features).bit_length() - 1)
    return MULTIPROCESSORS * min(max(power_of_two, FEWEST), MOST)


def _kernel(x: Any, scale: Any, g: Any, dx: Any, *sums: Any, **options: Any) -> None:
    number, features = x.shape
    layout = plgpu.Layout.WG_STRIDED((features,), vec_size=2)
    load = functools.partial(plgpu.load, layout=layout, optimized=False)
    program, programs = lax.axis_index("program"), sums[0].shape[0]
    gamma = load(scale, ())

    def add_row(i: Any, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        row = program + i * programs
        wide = load(g.at[row], ()).astype(jnp.float32)
        found, normal = gradient_of_rows(
            load(x.at[row], ()).astype(jnp.float32),
            wide * gamma,
            lambda values: jnp.sum(values) / features,
            **options,
        )
        dx[row] = found.astype(dx.dtype)
        added = (wide * normal, wide)
        return tuple(a + b for a, b in zip(totals, added, strict=False))

    nothing = plgpu.layout_cast(jnp.zeros((features,), jnp.float32), layout)
    rows = (number - program + programs - 1) // programs
    totals = lax.fori_loop(0, rows, add_row, (nothing,) * len(sums))
    for each, total in zip(sums, totals, strict=True):
        each[program] = total
