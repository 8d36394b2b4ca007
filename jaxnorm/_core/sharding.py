"""How arrays are sharded on meshes with explicit axes."""

import math
from typing import Any

import jax
from jaxtyping import Array


def is_sharded(array: Any, axes: tuple[int, ...] | None = None) -> bool:
    """Whether any of these axes (or any axis) of an array is sharded on an explicit mesh.

    With automatic mesh axes, sharding is left to the compiler and is not known here.

    >>> is_sharded(jnp.ones(3))
    False
    """
    spec = jax.typeof(array).sharding.spec
    return any(spec[i] is not None for i in (range(len(spec)) if axes is None else axes))


def shards_along(array: Any, axis: int) -> int:
    """Returns the number of shards along an axis on an explicit mesh; 1 elsewhere.

    >>> shards_along(jnp.ones(3), 0)
    1
    """
    sharding = jax.typeof(array).sharding
    names = sharding.spec[axis]
    if names is None:
        return 1
    names = names if isinstance(names, tuple) else (names,)
    return math.prod(sharding.mesh.shape[name] for name in names)


def gathered(array: Any, axes: tuple[int, ...]) -> Array:
    """Gathers these axes on each device of an explicit mesh; elsewhere does nothing."""
    if not is_sharded(array, axes):
        return array
    spec = jax.typeof(array).sharding.spec
    whole = (None if i in axes else each for i, each in enumerate(spec))
    return jax.sharding.reshard(array, jax.sharding.PartitionSpec(*whole))


def placed_as(array: Any, other: Any) -> Array:
    """Shards `array` like `other`, of the same shape, on an explicit mesh."""
    spec = jax.typeof(other).sharding.spec
    if jax.typeof(array).sharding.spec == spec:
        return array
    return jax.sharding.reshard(array, spec)
