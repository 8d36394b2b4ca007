"""Residuals between the forward and the backward pass: one copy of x, and vectors.

`keeping_only_x` ensures this. Within it, a derivative rule reads x in its own dtype and
casts it itself, so that no float32 copy is written to memory; the derivative is in float32,
so that a 16-bit dx is rounded once.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from jaxnorm._core.layouts import if_tidy, is_tidy
from jaxnorm._core.sharding import is_sharded

Vectors = TypeVar("Vectors")
NAME = "jaxnorm_moments"
_SAVED = jax.checkpoint_policies.save_only_these_names(NAME)


def keeping_only_x(function: Callable[..., Any], static_argnums: Any) -> Callable[..., Any]:
    """Wraps `function`: residuals are its arguments and what `residual` marks."""
    return jax.checkpoint(
        function, prevent_cse=False, policy=_SAVED, static_argnums=static_argnums
    )


def residual(tree: Any) -> Any:
    """Marks `tree` to be stored for the derivative instead of being recomputed."""
    return checkpoint_name(tree, NAME)


def reread(wide: Array, x: Array, vectors: Vectors) -> tuple[Array, Vectors]:
    """Returns `wide`, cast again from the residual `x`, and the vectors.

    Otherwise XLA on a CPU would share x − μ between the forward and the backward pass, or
    between the sums and the result of one pass, and so write it to memory: an optimisation
    barrier prevents this. On a GPU or TPU, sharing saves passes.
    """
    return _reread(wide, lax.stop_gradient(x), vectors)


@jax.custom_jvp
def _reread(wide: Array, x: Array, vectors: Any) -> tuple[Array, Any]:
    x, vectors = lax.platform_dependent(
        (x, vectors), cpu=_apart, default=lambda arrays: arrays
    )
    return jnp.asarray(x, wide.dtype), vectors


@_reread.defjvp
def _reread_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    dwide, _, dvectors = tangents
    return _reread(*primals), (dwide, dvectors)


def _apart(arrays: Any) -> Any:
    behind = lax.optimization_barrier(arrays)
    # Under shard_map, a barrier would make all vary over the axes over which one does.
    alike = jax.tree.map(lambda *both: len(set(map(jax.typeof, both))) == 1, arrays, behind)
    return behind if all(jax.tree.leaves(alike)) else arrays


def total(values: Array, axes: tuple[int, ...]) -> Array:
    """Returns the sum over axes, kept at size 1, to within a few ulps in any layout."""
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


def spread(vector: Array, function: Callable[[Array], Array], over: Array) -> Array:
    """Applies a linear function to a vector, or to its broadcast to the shape of an array.

    Chooses whichever has a transpose that sums to within a few ulps. The broadcast is
    sharded as the array is, so that on an explicit mesh the transpose gathers nothing.

    Args:
      vector: an array with size 1 along some axes of `over`.
      function: a linear function, the same for the vector and for its broadcast.
      over: the array.
    """
    shape = over.shape
    axes = tuple(i for i, n in enumerate(shape) if vector.shape[i] != n)
    tidy = is_tidy(shape, axes)
    if tidy or not axes or vector.dtype == jnp.float64:
        return function(vector)
    place = jax.typeof(over).sharding if is_sharded(over) else None
    plain = functools.partial(jnp.broadcast_to, shape=shape, out_sharding=place)

    def in_float64(vector: Array) -> Array:
        with jax.enable_x64(True):
            wide = lax.convert_element_type(vector, jnp.float64)
            return lax.convert_element_type(plain(wide), vector.dtype)

    def of_broadcast(vector: Array) -> Array:
        return function(lax.platform_dependent(vector, cpu=in_float64, default=plain))

    if tidy is None:
        return if_tidy(shape, axes, function, of_broadcast, vector)
    return of_broadcast(vector)
