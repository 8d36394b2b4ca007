"""The programs that are compiled: norms and blocks, forward, backward, and both."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxnorm.linen as jn
from experiments.benchmarks.layers import EPSILON, Shape

LIBRARIES: dict[str, ModuleType] = {"jaxnorm": jn, "flax": nn}
GROUPS = 32
IMAGES, ROWS, SHORT_ROWS = (256, 56, 56, 64), (8192, 4096), (32768, 768)
# A small batch, a late layer, and a typical latent of a diffusion model.
FEW_IMAGES, SMALL_IMAGES, LATENTS = (8, 56, 56, 64), (256, 7, 7, 2048), (16, 64, 64, 320)


def batch_norm(library: str, **options: Any) -> nn.Module:
    """Returns batch norm in training mode."""
    is_ours = library == "jaxnorm"
    mode = {"train": True} if is_ours else {"use_running_average": False}
    return LIBRARIES[library].BatchNorm(momentum=0.9, **mode, **options)


def _norm(name: str, **fixed: Any) -> Callable[..., nn.Module]:
    return lambda library, **options: getattr(LIBRARIES[library], name)(**fixed, **options)


def _by_kernel(name: str) -> Callable[..., nn.Module]:
    """Ours with a kernel in the backward pass, beside flax's norm without one."""
    ours, flax = _norm(name, implementation="kernel"), _norm(name)
    return lambda library, **options: (ours if library == "jaxnorm" else flax)(
        library, **options
    )


class ConvBlocks(nn.Module):
    """Two blocks of convolution, batch norm and relu."""

    library: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of x's shape."""
        for _ in range(2):
            conv = nn.Conv(x.shape[-1], (3, 3), use_bias=False, dtype=self.dtype)
            norm = batch_norm(self.library, epsilon=EPSILON, dtype=self.dtype)
            x = nn.relu(norm(conv(x)))
        return x


class MLPBlocks(nn.Module):
    """Two residual blocks x + dense(relu(dense(rms_norm(x))))."""

    library: str
    dtype: Any
    norm: Callable[..., nn.Module] = _norm("RMSNorm")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of x's shape."""
        for _ in range(2):
            first, second = (
                nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype) for _ in range(2)
            )
            norm = self.norm(self.library, epsilon=EPSILON, dtype=self.dtype)
            x = x + second(nn.relu(first(norm(x))))
        return x


def _blocks(kind: type[nn.Module], **fixed: Any) -> Callable[..., nn.Module]:
    return lambda library, *, epsilon, dtype: kind(library=library, dtype=dtype, **fixed)


class Op(NamedTuple):
    """An op to compile.

    Attributes:
      make: `make(library, epsilon=…, dtype=…)` returns the module.
      shapes: the shapes of x, features last.
      sharded: the axis of x that is split for the collectives; None for no collectives.
      axes: the least number of axes of x.
    """

    make: Callable[..., nn.Module]
    shapes: tuple[Shape, ...]
    sharded: int | None = None
    axes: int = 2


OPS = {
    "batch_norm": Op(batch_norm, (IMAGES, FEW_IMAGES, SMALL_IMAGES), 0),
    "layer_norm": Op(_norm("LayerNorm"), (ROWS, SHORT_ROWS), -1),
    "rms_norm": Op(_norm("RMSNorm"), (ROWS, SHORT_ROWS), -1),
    "group_norm": Op(_norm("GroupNorm", num_groups=GROUPS), (IMAGES, LATENTS, ROWS), 1),
    "instance_norm": Op(_norm("InstanceNorm"), (IMAGES,), 1),
    "conv": Op(_blocks(ConvBlocks), ((256, 28, 28, 128),), axes=4),
    "mlp": Op(_blocks(MLPBlocks), (ROWS,)),
    "layer_norm_kernel": Op(_by_kernel("LayerNorm"), (ROWS, SHORT_ROWS)),
    "rms_norm_kernel": Op(_by_kernel("RMSNorm"), (ROWS, SHORT_ROWS)),
    "mlp_kernel": Op(_blocks(MLPBlocks, norm=_by_kernel("RMSNorm")), (ROWS,)),
}
NORMS = tuple(name for name, op in OPS.items() if op.sharded is not None)
PROGRAMS = ("fwd", "both", "bwd")


class Built(NamedTuple):
    """The programs of a module.

    Attributes:
      programs: by name, a function and the shapes and dtypes of its arguments.
      kept: the size of the residuals in bytes.
      unit: the size of x in bytes.
    """

    programs: dict[str, tuple[Callable, tuple]]
    kept: int
    unit: int


def build(op: str, library: str, shape: Shape, dtype: str) -> Built:
    """Returns the programs of an op without computing anything."""
    module = OPS[op].make(library, epsilon=EPSILON, dtype=jnp.dtype(dtype))
    x = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    variables = dict(jax.eval_shape(module.init, jax.random.key(0), x))
    params = variables.pop("params")

    def forward(params: Any, state: Any, x: Any) -> Any:
        return module.apply({"params": params, **state}, x, mutable=list(state))

    def pull_back(params: Any, state: Any, x: Any) -> Any:
        return jax.vjp(lambda p, x: forward(p, state, x), params, x, has_aux=True)

    def both(params: Any, state: Any, x: Any, g: Any) -> Any:
        y, vjp, state = pull_back(params, state, x)
        return y, state, vjp(g)

    vjp = jax.eval_shape(pull_back, params, variables, x)[1]
    return Built(
        {
            "fwd": (forward, (params, variables, x)),
            "both": (both, (params, variables, x, x)),
            "bwd": (lambda vjp, g: vjp(g), (vjp, x)),
        },
        sum(each.size * each.dtype.itemsize for each in jax.tree.leaves(vjp)),
        math.prod(shape) * x.dtype.itemsize,
    )
