"""What is kept of x between forward and backward: x itself, once, and vectors.

`keeping_only_x` makes that so. Within it a rule reads x in its own dtype and casts it
itself, so that no copy of it in float32 is written, and carries its derivative in float32,
so that a 16-bit dx is rounded once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from jaxnorm.axes import Shape
from jaxnorm.layouts import if_tidy, is_tidy

NAME = "jaxnorm_moments"
_SAVED = jax.checkpoint_policies.save_only_these_names(NAME)


def keeping_only_x(function: Callable[..., Any], static_argnums: Any) -> Callable[..., Any]:
    """`function`, whose derivative keeps the arguments and what `residual` names."""
    return jax.checkpoint(
        function, prevent_cse=False, policy=_SAVED, static_argnums=static_argnums
    )


def residual(tree: Any) -> Any:
    """`tree`, kept for the derivative in place of being computed again."""
    return checkpoint_name(tree, NAME)


def reread(wide: Array, x: Array, beside: Array) -> Array:
    """`wide`, computed anew from the residual `x`, of which it is the cast.

    On a CPU XLA would otherwise share x − μ between forward and backward, or between the
    sums and the result of one, and so write it to memory: a barrier about x and `beside`
    keeps it from that. On a GPU or TPU sharing is what saves passes.
    """
    return _reread(wide, *lax.stop_gradient((x, beside)))


@jax.custom_jvp
def _reread(wide: Array, x: Array, beside: Array) -> Array:
    x = lax.platform_dependent(
        x,
        beside,
        cpu=lambda *both: lax.optimization_barrier(both)[0],
        default=lambda x, _: x,
    )
    return jnp.asarray(x, wide.dtype)


@_reread.defjvp
def _reread_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    return _reread(*primals), tangents[0]


def total(values: Array, axes: tuple[int, ...]) -> Array:
    """The sum over axes, kept at size 1, to within few ulps in any layout."""
    plain = functools.partial(jnp.sum, axis=axes, keepdims=True)
    tidy = is_tidy(values.shape, axes)
    if tidy or values.dtype == jnp.float64:
        return plain(values)

    def in_float64(values: Array) -> Array:
        with jax.enable_x64(True):
            wide = lax.convert_element_type(values, jnp.float64)
            return lax.convert_element_type(plain(wide), values.dtype)

    on_cpu = in_float64
    if tidy is None:
        on_cpu = functools.partial(if_tidy, values.shape, axes, plain, in_float64)
    return lax.platform_dependent(values, cpu=on_cpu, default=plain)


def spread(vector: Array, function: Callable[[Array], Array], shape: Shape) -> Array:
    """The linear function of a vector of size 1 along some axes, or of its broadcast.

    Whichever makes its transpose a sum to within few ulps.
    """
    axes = tuple(i for i, n in enumerate(shape) if vector.shape[i] != n)
    tidy = is_tidy(shape, axes)
    if tidy or vector.dtype == jnp.float64:
        return function(vector)
    plain = functools.partial(jnp.broadcast_to, shape=shape)

    def in_float64(vector: Array) -> Array:
        with jax.enable_x64(True):
            wide = lax.convert_element_type(vector, jnp.float64)
            return lax.convert_element_type(plain(wide), vector.dtype)

    def of_broadcast(vector: Array) -> Array:
        return function(lax.platform_dependent(vector, cpu=in_float64, default=plain))

    if tidy is None:
        return if_tidy(shape, axes, function, of_broadcast, vector)
    return of_broadcast(vector)
