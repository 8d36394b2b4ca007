"""Whether a kernel may be used, and fits."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnorm._core.axes import Shape
from jaxnorm._core.layouts import is_symbolic, size_along
from jaxnorm._core.sharding import is_sharded
from jaxnorm._core.variance.choice import has_several_devices

Implementation = Literal["xla", "kernel"]
DTYPES = (jnp.float32, jnp.bfloat16)  # kernels on a TPU cannot load float16
# Multiples that give whole tiles on a TPU and fill the threads of a warpgroup on a GPU.
ROWS, FEATURES = 16, 256
# The longest rows. On an H100, rows of 8,192 did not stay in registers, and took 1.3 to 2.2
# times as long as by XLA.
MOST_FEATURES = {"tpu": 8192, "cuda": 4096}


def check_implementation(implementation: Any) -> None:
    """Raises a ValueError unless it is None or one of the allowed values."""
    if implementation is not None and implementation not in get_args(Implementation):
        raise ValueError(
            f"implementation={implementation!r}, but None or one of "
            f"{get_args(Implementation)} is expected; None lets jaxnorm choose."
        )


def fits(
    x: Array, dtype: np.dtype, reduced: tuple[int, ...], features: tuple[int, ...]
) -> bool:
    """Whether a kernel fits the backward pass: for whole rows, on one device.

    `dtype` is the output dtype. An array may be sharded without its type showing it, and
    the compiler cannot split a kernel; within `jax.shard_map` with check_vma=False, each
    device runs its own.
    """
    if x.dtype not in DTYPES or dtype not in DTYPES:
        return False
    if is_symbolic(x.shape) or is_sharded(x):
        return False
    if _varies(x) or not _is_on_one_device():
        return False
    trailing = tuple(range(x.ndim - len(reduced), x.ndim))
    if tuple(sorted(reduced)) != trailing or features != trailing:
        return False
    if x.size == 0:
        return False
    rows, size = shape_of_rows(x.shape, reduced)
    return rows % ROWS == 0 and size % FEATURES == 0 and size <= max(MOST_FEATURES.values())


def holds(platform: str | None, features: int) -> bool:
    """Whether the kernel of this platform takes rows of so many features."""
    return features <= MOST_FEATURES.get(platform or "", features)


def _varies(x: Array) -> bool:
    """Whether the type of x says that it varies over a mapped axis."""
    kind = jax.typeof(x)
    varying = kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
    return bool(varying)


def _is_on_one_device() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.are_all_axes_manual:
        return True
    return not any(has_several_devices(platform) for platform in ("tpu", "cuda"))


def runs_on_gpu() -> bool:
    """Whether the GPU kernel may be compiled: only for Hopper or later.

    A process without a GPU compiles for another machine, which is assumed to be suitable.
    """
    try:
        device = jax.local_devices(backend="cuda")[0]
    except RuntimeError:
        return True
    return float(device.compute_capability) >= 9


def shape_of_rows(shape: Shape, reduced: tuple[int, ...]) -> tuple[int, int]:
    """Returns (rows, features) of an array that is reduced along its last axes."""
    features = size_along(shape, reduced)
    return size_along(shape, tuple(range(len(shape)))) // features, features
