"""What all norms share: normalising an array by its own moments, or by running ones."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxnorm._core.axes import complement, sizes_of
from jaxnorm._core.dtypes import accumulation_dtype
from jaxnorm._core.kernels.choosing import (
    Implementation,
    check_implementation,
    fits,
    shape_of_rows,
)
from jaxnorm._core.kernels.rows import Kernel, normalize_rows
from jaxnorm._core.layouts import suits_a_gpu_kernel
from jaxnorm._core.measurement import Samples, measured
from jaxnorm._core.moments import Moments, check_axis_groups, synchronize
from jaxnorm._core.normalization import How, check_moments, normalize_given, normalized
from jaxnorm._core.operands import (
    Rounding,
    check_rounding,
    composed,
    varies,
    wide_affine,
    wide_along,
)
from jaxnorm._core.residuals import keeping_only_x, residual
from jaxnorm._core.variance.choice import Purpose, settled
from jaxnorm._core.variance.formulas import Measured


class Correction(NamedTuple):
    """What a norm changes between measuring and normalising; None changes nothing.

    y = γ·((x − μ)/√(variance + ε)·ratio + shift) + β, all with the shape of the moments.

    Attributes:
      variance: in place of that of the moments.
      ratio: r.
      shift: d.
    """

    variance: Array | None = None
    ratio: Array | None = None
    shift: Array | None = None


Correct = Callable[[Moments, float, Any], Correction]
Finish = Callable[[Array, Any], Array]


class Plan(NamedTuple):
    """Everything about a norm that is known before tracing.

    Attributes:
      samples: which elements share their moments.
      features: the axes over which scale and bias vary.
      epsilon: ε.
      dtype: the output dtype.
      rounding: when to round to the output dtype.
      axis_name: mapped axes over which samples are split.
      axis_index_groups: groups of indices along axis_name.
      implementation: "kernel" to use a kernel where one fits.
    """

    samples: Samples
    features: tuple[int, ...]
    epsilon: float
    dtype: np.dtype
    rounding: Rounding
    axis_name: str | tuple[str, ...] | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None
    implementation: Implementation | None = None


def plan(
    samples: Samples,
    features: tuple[int, ...],
    *,
    epsilon: float,
    dtype: np.dtype,
    rounding: Rounding,
    axis_name: str | tuple[str, ...] | None,
    axis_index_groups: Sequence[Sequence[int]] | None,
    implementation: Implementation | None = None,
) -> Plan:
    """Returns a Plan; checks its rounding, groups and implementation."""
    check_rounding(rounding)
    check_implementation(implementation)
    check_axis_groups(axis_name, axis_index_groups)
    if axis_index_groups is not None:
        axis_index_groups = tuple(tuple(each) for each in axis_index_groups)
    return Plan(
        samples,
        features,
        float(epsilon),
        dtype,
        rounding,
        axis_name,
        axis_index_groups,
        implementation,
    )


def normalize_by_own(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    plan: Plan,
) -> Array:
    """Normalises x by its own moments. The operands have been checked."""
    lone = weights is None and plan.samples.groups is None and plan.axis_name is None
    within = lone and suits_a_gpu_kernel(
        x.shape,
        plan.samples.axes,
        x.dtype.itemsize,
        about_zero=plan.samples.about_zero,
    )
    purpose = "output" if within else "norm"
    is_kernel = (
        lone
        and plan.implementation == "kernel"
        and not any(varies(each, x.ndim, plan.features) for each in (scale, bias))
    )
    if is_kernel and fits(x, plan.dtype, plan.samples.axes, plan.features):
        return _by_kernel(x, scale, bias, plan, purpose)
    return _output(x, *wide_affine(x, scale, bias, plan.features), weights, plan, purpose)


def _by_kernel(
    x: Array, scale: ArrayLike | None, bias: ArrayLike | None, plan: Plan, purpose: Purpose
) -> Array:
    rows = x.reshape(shape_of_rows(x.shape, plan.samples.axes))
    wide = accumulation_dtype(x.dtype)
    scale, bias = (
        None if each is None else jnp.asarray(each, wide).reshape(-1)
        for each in (scale, bias)
    )
    scale = jnp.ones(rows.shape[1:], wide) if scale is None else scale
    about_zero = plan.samples.about_zero
    along = plan._replace(samples=Samples((1,), about_zero=about_zero), features=(1,))
    formula = _Rows(along, purpose)
    kernel = Kernel(formula, plan.dtype, plan.epsilon, about_zero)
    return normalize_rows(rows, scale, bias, kernel).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The formula for a norm of rows; equal if its attributes are equal."""

    plan: Plan
    purpose: Purpose

    def __call__(self, x: Array, scale: Array, bias: Array | None) -> Array:
        vectors = wide_affine(x, scale, bias, self.plan.features)
        return _output(x, *vectors, None, self.plan, self.purpose)


def normalize_and_measure(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    plan: Plan,
    correct: Correct | None = None,
    finish: Finish | None = None,
    given: Any = (),
) -> tuple[Array, Moments]:
    """Returns the output and the moments, which have the shape of the axes not reduced.

    Args:
      x: checked, as all operands are.
      scale: γ, or None.
      bias: β, or None.
      weights: of x, or None.
      plan: of the norm.
      correct: `correct(moments, epsilon, given)` returns a Correction.
      finish: `finish(y, given)` returns the output, before it is rounded. It is computed
        again in the backward pass, for which only `given` is stored.
      given: arrays for these two functions. (The functions themselves are static: give the
        same ones in every call.)
    """
    scale, bias = wide_affine(x, scale, bias, plan.features)
    return _output_and_moments(x, scale, bias, weights, given, plan, correct, finish)


@functools.partial(jax.jit, static_argnums=(4, 5), inline=True)
@functools.partial(keeping_only_x, static_argnums=(4, 5))
def _output(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    plan: Plan,
    purpose: Purpose,
) -> Array:
    wide = jnp.asarray(x, accumulation_dtype(x.dtype))
    found = _moments(wide, x, weights, plan, purpose)
    moments = "within a kernel" if purpose == "output" else "given"
    how = How(plan.epsilon, plan.dtype, plan.rounding, moments)
    return normalized(wide, x, found, scale, bias, weights, how)


@functools.partial(jax.jit, static_argnums=(5, 6, 7), inline=True)
@functools.partial(keeping_only_x, static_argnums=(5, 6, 7))
def _output_and_moments(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    weights: Array | None,
    given: Any,
    plan: Plan,
    correct: Correct | None,
    finish: Finish | None,
) -> tuple[Array, Moments]:
    wide = jnp.asarray(x, accumulation_dtype(x.dtype))
    found = _moments(wide, x, weights, plan, "norm")
    kept = (
        jnp.squeeze(each, plan.samples.axes)
        for each in (found.count, found.mean, found.var)
    )
    moments = Moments(*kept)
    if correct is not None:
        kept_axes = complement(plan.samples.axes, x.ndim)
        variance, ratio, shift = (
            None if each is None else wide_along(each, kept_axes, x)
            for each in correct(moments, plan.epsilon, given)
        )
        if variance is not None:
            found = found._replace(var=variance)
        scale, bias = composed((scale, bias), (ratio, shift))
    how = How(plan.epsilon, plan.dtype, plan.rounding, "given")
    end = None if finish is None else lambda y: finish(y, given)
    return normalized(wide, x, found, scale, bias, weights, how, end), moments


def normalize_by_running(
    x: Array,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    weights: Array | None,
    plan: Plan,
    running: Moments,
) -> Array:
    """Normalises x by running moments of its features. The operands have been checked."""
    check_moments(running, sizes_of(x.shape, plan.features))
    how = How(plan.epsilon, plan.dtype, plan.rounding, "given")
    return normalize_given(
        x, running, scale, bias, weights, plan.features, plan.features, how
    )


def _moments(
    wide: Array, x: Array, weights: Array | None, plan: Plan, purpose: Purpose
) -> Measured:
    found = measured(wide, x, weights, plan.samples, purpose)
    if plan.axis_name is None:
        return found
    local = Moments(found.count, found.mean, found.var)
    merged = synchronize(local, plan.axis_name, plan.axis_index_groups)
    if not plan.samples.about_zero:
        merged = settled(merged)
    count, mean, var = merged
    return residual(Measured(count, mean, jnp.zeros_like(mean), var))
