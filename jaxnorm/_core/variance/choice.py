"""Mean and variance of an array: the choice of a formula for each platform.

The formulas differ in what a platform computes in one pass over memory:

* a CPU has fast sums in float32, but cannot fuse two sums: `two_passes`;
* a GPU adds in float64 as fast as it reads: `one_pass_in_float64`, `one_pass_in_blocks`;
* a TPU has no float64, but reduces any monoid: `one_pass_of_merges`.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxnorm._core.layouts import ends_reduced, has_few_rows, is_tidy
from jaxnorm._core.moments import Moments
from jaxnorm._core.sharding import is_sharded
from jaxnorm._core.variance.blocks import blocks_of, one_pass_in_blocks
from jaxnorm._core.variance.formulas import (
    Measured,
    corrected_two_passes,
    in_float64,
    one_pass_in_float64,
    two_passes,
    two_passes_if_tidy,
    ulp,
    within_a_kernel,
)
from jaxnorm._core.variance.merging import one_pass_of_merges

Purpose = Literal["output", "norm"]


def mean_and_variance(
    x: Array, weights: Array | None, axes: tuple[int, ...], purpose: Purpose
) -> Measured:
    """Returns the moments of `x`, which has an accumulation dtype, over `axes`.

    Args:
      x: the samples.
      weights: a mask, or numbers in x's dtype, with x's rank; defaults to 1.
      axes: the axes to reduce.
      purpose: what the moments are for. "output": only the output of a norm, so that on a
        GPU they may stay within its kernel. "norm": more than that, such as a derivative.
    """
    formulas = {
        platform: functools.partial(formula, axes=axes)
        for platform, formula in formulas_for(x, weights, axes, purpose).items()
    }
    if len(formulas) == 1:
        (formula,) = formulas.values()
        return formula(x, weights)
    return lax.platform_dependent(x, weights, **formulas)


Formula = Callable[..., Measured]


def formulas_for(
    x: Array, weights: Array | None, axes: tuple[int, ...], purpose: Purpose
) -> dict[str, Formula]:
    """Returns a formula for each platform; it takes x, its weights and the axes."""
    if x.dtype == jnp.float64:
        return {"default": corrected_two_passes}
    if has_several_devices("cpu") or is_sharded(x, axes):
        on_cpu = one_pass_in_float64
    elif (tidy := is_tidy(x.shape, axes)) is None:
        on_cpu = two_passes_if_tidy
    elif not tidy:
        on_cpu = in_float64
    else:
        on_cpu = two_passes if weights is None else corrected_two_passes
    if weights is not None:
        on_gpu = one_pass_in_float64
    elif ends_reduced(x.shape, axes):
        on_gpu = within_a_kernel if purpose == "output" else one_pass_in_float64
    else:
        on_gpu = one_pass_in_blocks if blocks_of(x, axes) else one_pass_in_float64
    return {
        "default": on_cpu,
        "cuda": on_gpu,
        "rocm": on_gpu,
        # XLA for a TPU takes minutes to compile merges along rows if few rows are stacked,
        # as in (8192, 16, 128), with heads or groups of features.
        "tpu": corrected_two_passes if has_few_rows(x.shape, axes) else one_pass_of_merges,
    }


def has_several_devices(platform: str) -> bool:
    """Whether arrays may be sharded there, so that statistics should be one message."""
    try:
        return jax.device_count(platform) > 1
    except RuntimeError:  # the platform is not available
        return False


def settled(moments: Moments) -> Moments:
    """Sets variances that may be due to rounding alone to 0, in merged moments."""
    count, mean, var = moments
    return Moments(count, mean, jnp.where(var <= jnp.square(4 * ulp(var) * mean), 0, var))
