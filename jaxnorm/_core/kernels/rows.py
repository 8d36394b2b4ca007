"""A norm of rows whose pullback is a kernel.

A formula gives its output and every derivative but one: the transpose of the differential,
which the backward pass computes, is a kernel that reads x and the cotangent of y once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from jaxnorm._core.kernels.choosing import holds, runs_on_gpu

# Maps x, scale and bias (or None) to y; hashable, and equal if it computes the same.
Formula = Callable[[Array, Array, Array | None], Array]


class Kernel(NamedTuple):
    """The static parameters of a kernel.

    Attributes:
      formula: the norm as XLA computes it.
      dtype: the output dtype.
      epsilon: ε.
      about_zero: whether to use 0 in place of the mean.
    """

    formula: Formula
    dtype: Any
    epsilon: float
    about_zero: bool


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def normalize_rows(x: Array, scale: Array, bias: Array | None, kernel: Kernel) -> Array:
    """Normalises x (rows, features); scale and bias (features,) are in float32."""
    return kernel.formula(x, scale, bias)


def _normalize_rows_jvp(kernel: Kernel, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, scale, bias = primals
    y = normalize_rows(x, scale, bias, kernel)
    is_constant = isinstance(tangents[0], SymbolicZero)
    primals, tangents = (
        tuple(each for each in given if each is not None) for given in (primals, tangents)
    )
    tangents = [
        jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    ]
    if is_constant:  # the kernel would write an unused gradient of x
        return y, _differential(x, scale, *tangents, kernel=kernel)
    return y, differential_p.bind(x, scale, *tangents, kernel=kernel)


normalize_rows.defjvp(_normalize_rows_jvp, symbolic_zeros=True)


def _operands(x: Array, scale: Array, has_bias: bool) -> tuple[Array, ...]:
    return (x, scale, jnp.zeros_like(scale)) if has_bias else (x, scale)


def _apply(kernel: Kernel, x: Array, scale: Array, bias: Array | None = None) -> Array:
    return kernel.formula(x, scale, bias)


def _differential(x: Array, scale: Array, *tangents: Array, kernel: Kernel) -> Array:
    """Returns dy, linear in the tangents of x, scale and, if there is one, bias."""
    operands = _operands(x, scale, len(tangents) == 3)
    return jax.jvp(functools.partial(_apply, kernel), operands, tuple(tangents))[1]


# `_differential` with a custom transpose.
differential_p = Primitive("jaxnorm_differential_of_rows")
differential_p.def_impl(jax.jit(_differential, static_argnames="kernel"))
mlir.register_lowering(
    differential_p, mlir.lower_fun(_differential, multiple_results=False)
)


@differential_p.def_abstract_eval
def _abstract(x: Any, scale: Any, *tangents: Any, kernel: Kernel) -> Any:
    return ShapedArray(x.shape, kernel.dtype)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, kernel: Kernel) -> Any:
    function = functools.partial(_differential, kernel=kernel)
    tangents = [ad.instantiate_zeros(each) for each in tangents]
    _, out = jax.jvp(function, tuple(primals), tuple(tangents))
    return differential_p.bind(*primals, kernel=kernel), out


def _batched(operands: Sequence[Any], axes: Sequence[Any], *, kernel: Kernel) -> Any:
    function = functools.partial(_differential, kernel=kernel)
    return jax.vmap(function, axes)(*operands), 0


def _transposed(cotangent: Any, *operands: Any, kernel: Kernel) -> Any:
    x, scale, *tangents = operands
    if isinstance(cotangent, ad.Zero):
        found = (None,) * len(tangents)
    else:
        found = pull_back(kernel, len(tangents) == 3, x, scale, cotangent)
    wanted = (
        gradient if ad.is_undefined_primal(tangent) else None
        for gradient, tangent in zip(found, tangents, strict=True)
    )
    return None, None, *wanted


ad.primitive_jvps[differential_p] = _jvp
ad.primitive_transposes[differential_p] = _transposed
batching.primitive_batchers[differential_p] = _batched


def pull_back(
    kernel: Kernel, has_bias: bool, x: Array, scale: Array, g: Array
) -> tuple[Array, ...]:
    """Returns the gradients of x, scale and (if any) bias, for the cotangent g of y."""
    return tuple(pull_back_p.bind(x, scale, g, kernel=kernel, has_bias=has_bias))


def _pull_back(
    x: Array, scale: Array, g: Array, *, kernel: Kernel, has_bias: bool
) -> tuple[Array, ...]:
    function = functools.partial(_apply, kernel)
    return jax.vjp(function, *_operands(x, scale, has_bias))[1](g)


# `_pull_back`, replaced by kernels on the platforms that have them.
pull_back_p = Primitive("jaxnorm_pull_back_rows")
pull_back_p.multiple_results = True


@functools.partial(jax.jit, static_argnames=("kernel", "has_bias"))
def _run(*operands: Array, kernel: Kernel, has_bias: bool) -> Sequence[Array]:
    return pull_back_p.bind(*operands, kernel=kernel, has_bias=has_bias)


pull_back_p.def_impl(_run)


@pull_back_p.def_abstract_eval
def _gradients(x: Any, scale: Any, g: Any, *, kernel: Kernel, has_bias: bool) -> Any:
    vector = ShapedArray(scale.shape, scale.dtype)
    return [ShapedArray(x.shape, x.dtype), *[vector] * (2 if has_bias else 1)]


def _pull_back_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    function = functools.partial(_pull_back, **params)
    tangents = [ad.instantiate_zeros(each) for each in tangents]
    _, out = jax.jvp(function, tuple(primals), tuple(tangents))
    return pull_back_p.bind(*primals, **params), out


def _pull_back_batched(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> Any:
    found = jax.vmap(functools.partial(_pull_back, **params), axes)(*operands)
    return found, (0,) * len(found)


ad.primitive_jvps[pull_back_p] = _pull_back_jvp
batching.primitive_batchers[pull_back_p] = _pull_back_batched


def kernels() -> dict[str, Callable[..., tuple[Array, ...]]]:
    """Returns the kernels by platform; they import Pallas when they are called."""

    def on_tpu(*operands: Array, **options: Any) -> tuple[Array, ...]:
        from jaxnorm._core.kernels.tpu import pull_back

        return pull_back(*operands, **options)

    def on_gpu(*operands: Array, **options: Any) -> tuple[Array, ...]:
        from jaxnorm._core.kernels.gpu import pull_back

        return pull_back(*operands, **options)

    return {"tpu": on_tpu} | ({"cuda": on_gpu} if runs_on_gpu() else {})


def _compiled(
    *operands: Array, platform: str | None, kernel: Kernel, has_bias: bool
) -> tuple[Array, ...]:
    function = kernels().get(platform or "default")
    if function is None or not holds(platform, operands[0].shape[1]):
        return _pull_back(*operands, kernel=kernel, has_bias=has_bias)
    return function(
        *operands,
        epsilon=kernel.epsilon,
        about_zero=kernel.about_zero,
        has_bias=has_bias,
    )


# One rule per platform, since a program exported for several platforms contains them all.
for _platform in (None, "tpu", "cuda"):
    mlir.register_lowering(
        pull_back_p,
        mlir.lower_fun(functools.partial(_compiled, platform=_platform), True),
        platform=_platform,
    )
