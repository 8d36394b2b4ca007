"""What is timed: norms, shapes and dtypes, the most important first."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

import jaxnorm.linen as jn

Shape = tuple[int, ...]
MODES = ("forward", "forward and backward")

# The least number of times that an array of x's size is read or written: forward, and
# forward and backward in one program. A row stays where its moments and y are computed;
# for a column the moments need all of x before the first y is known.
OF_ROWS = (2, 5)
OF_COLUMNS = (3, 7)


class Op(NamedTuple):
    """A norm in both libraries.

    Attributes:
      makers: `make(dtype=...)` returns the module, by library.
      passes: the least number, forward, and forward and backward.
    """

    makers: dict[str, Callable[..., nn.Module]]
    passes: tuple[int, int]


def _pair(name: str, passes: tuple[int, int], **options: Any) -> Op:
    makers = {"jaxnorm": getattr(jn, name), "flax": getattr(nn, name)}
    return Op(
        {key: functools.partial(each, **options) for key, each in makers.items()}, passes
    )


def _by_kernel(name: str) -> Op:
    """Ours with a kernel in the backward pass; flax has no such kernel."""
    ours = functools.partial(getattr(jn, name), implementation="kernel")
    return Op({"jaxnorm": ours, "flax": getattr(nn, name)}, OF_ROWS)


OPS = {
    "layer_norm": _pair("LayerNorm", OF_ROWS),
    "rms_norm": _pair("RMSNorm", OF_ROWS),
    "layer_norm_kernel": _by_kernel("LayerNorm"),
    "rms_norm_kernel": _by_kernel("RMSNorm"),
    "batch_norm": _pair("BatchNorm", OF_COLUMNS, use_running_average=False),
    "group_norm": _pair("GroupNorm", OF_COLUMNS, num_groups=32),
    "instance_norm": _pair("InstanceNorm", OF_COLUMNS),
}


class Timed(NamedTuple):
    """One comparison, in which jaxnorm, flax and a copy take turns."""

    op: str
    shape: Shape
    dtype: str
    mode: str

    @property
    def size(self) -> str:
        """The shape as text."""
        return "x".join(map(str, self.shape))

    @property
    def passes(self) -> int:
        """The least number of passes over x."""
        return OPS[self.op].passes[MODES.index(self.mode)]

    @property
    def bytes(self) -> int:
        """The size of x in bytes."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.op} {self.size} {self.dtype} {self.mode}"


ROWS = (
    *((32768, features) for features in (1024, 4096, 256, 8192, 16384)),
    *((8192, features) for features in (768, 1600)),
)
RESNET_50 = ((112, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
UNET = ((64, 320), (32, 640), (16, 1280))


def _images(batch: int, sizes: tuple[tuple[int, int], ...]) -> tuple[Shape, ...]:
    return tuple((batch, side, side, channels) for side, channels in sizes)


FIRST: dict[str, tuple[Shape, ...]] = {
    "layer_norm": ((8192, 4096),),
    "rms_norm": ((8192, 4096),),
    "layer_norm_kernel": ((8192, 4096), (32768, 1024)),
    "rms_norm_kernel": ((8192, 4096), (32768, 1024)),
    "batch_norm": ((256, 56, 56, 64),),
    "group_norm": ((256, 56, 56, 64),),
}
REST: dict[str, tuple[Shape, ...]] = {
    "layer_norm": ROWS,
    "batch_norm": (*_images(256, RESNET_50), *_images(32, ((56, 64), *RESNET_50))),
    "group_norm": (*_images(16, UNET), *_images(2, UNET)),
    "rms_norm": ROWS,
    "instance_norm": ((256, 56, 56, 64),),
}
REHEARSED: dict[str, tuple[Shape, ...]] = {
    "layer_norm": ((64, 128),),
    "batch_norm": ((4, 8, 8, 16),),
    "group_norm": ((2, 4, 4, 64),),
}
DTYPES = ("bfloat16", "float32")


def timed(shapes: dict[str, tuple[Shape, ...]]) -> list[Timed]:
    """Returns all comparisons of these shapes."""
    return [
        Timed(op, shape, dtype, mode)
        for op, sizes in shapes.items()
        for shape, dtype, mode in itertools.product(sizes, DTYPES, MODES)
    ]
