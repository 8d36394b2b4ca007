"""The normalisations that are measured, one row each."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import numpy as np

import jaxnorm.linen as jn
from experiments.benchmarks import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    torch_programs,
)
from experiments.benchmarks.comparison import STEP
from experiments.benchmarks.layers import Inputs, Layer, Program, Shape

MODES = ("eval-forward", "train-forward", "backward", "forward-backward", STEP)


@dataclass(frozen=True)
class Op:
    """A normalisation in all libraries.

    Attributes:
      shapes: the shapes of x for "cpu", for an "accelerator" and for "quick" runs.
      passes: the least number of times that each mode reads or writes an array of x's
        size; modes not listed are not measured. Norms without running statistics have
        no mode that normalises by them.
      pooled: `pooled(shape)`, the number of values of x that share their moments.
      reference: `reference(inputs, train=...) -> y` in float64.
      reference_dx: `reference_dx(inputs) -> dx` of the train mode, in float64.
      layers: `build(inputs, dtype) -> Layer` for each JAX library that has the norm.
      torch: `build(mode, inputs, dtype) -> Program`, or None.
      params: the names, "scale" and "bias", of the parameters that it has.
      networks: makes the norm for a network that is trained with it.
      images: the shapes of that network's input, by the same names as `shapes`.
    """

    shapes: Mapping[str, tuple[Shape, ...]]
    passes: Mapping[str, int]
    pooled: Callable[[Shape], int]
    reference: Callable[..., np.ndarray]
    reference_dx: Callable[..., np.ndarray]
    layers: Mapping[str, Callable[..., Layer]]
    torch: Callable[[str, Inputs, str], Program] | None = None
    params: tuple[str, ...] = ("scale", "bias")
    networks: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)
    images: Mapping[str, Shape] = field(default_factory=dict)

    def draw(self, shape: Shape, dtype: str) -> Inputs:
        """Draws the inputs that every library receives, as far as the norm uses them."""
        inputs = Inputs.draw(shape, dtype)
        return inputs._replace(
            params={name: inputs.params[name] for name in self.params},
            statistics=inputs.statistics if "eval-forward" in self.passes else (),
        )


RESNET_50 = ((112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
UNET = ((64, 320), (32, 640), (16, 1280))

ROWS = {
    "cpu": ((4096, 768), (1024, 4096), (16384, 128)),
    "accelerator": (
        *((32768, features) for features in (256, 1024, 4096, 8192, 16384)),
        *((8192, features) for features in (768, 1600, 4096)),
    ),
    "quick": ((64, 128),),
}
IMAGES = {
    "cpu": ((16, 56, 56, 64), (64, 14, 14, 256)),
    "accelerator": tuple(
        (batch, side, side, channels) for batch in (2, 16) for side, channels in UNET
    ),
    "quick": ((2, 8, 8, 64),),
}

# A row is read into a cache, where its moments and y are computed, and y is written. The
# backward pass reads x and g in the same way, and writes dx.
PASSES_OF_ROWS = {"train-forward": 2, "backward": 3, "forward-backward": 5}
# The moments need all of x before the first y is known: read, read again, write.
# The backward pass reads x and g for two sums, reads both again, and writes dx.
PASSES_OF_IMAGES = {"train-forward": 3, "backward": 5, "forward-backward": 8}


def _stateless(norm: Any, *, channels_last: bool = True, **options: Any) -> Op:
    """Returns the row of a norm without running statistics, from its module."""
    return Op(
        pooled=norm.FORMULA.pooled,
        reference=norm.FORMULA.y,
        reference_dx=norm.FORMULA.dx,
        layers=norm.LAYERS,
        torch=functools.partial(
            torch_programs.program, norm.torch_forward, channels_last=channels_last
        ),
        **options,
    )


OPS = {
    "batch_norm": Op(
        shapes={
            "cpu": (
                (32, 56, 56, 64),
                (64, 28, 28, 128),
                (256, 14, 14, 64),
                (4096, 1024),
                (256, 1024),
            ),
            "accelerator": tuple(
                (batch, side, side, channels)
                for batch in (32, 256)
                for side, channels in RESNET_50
            ),
            "quick": ((8, 14, 14, 32),),
        },
        passes={"eval-forward": 2, **PASSES_OF_IMAGES},
        pooled=lambda shape: math.prod(shape[:-1]),
        reference=batch_norm.reference,
        reference_dx=batch_norm.reference_dx,
        layers=batch_norm.LAYERS,
        # channels_last is torch's faster format here, and matches the others' order of x.
        torch=functools.partial(torch_programs.program, batch_norm.torch_forward),
        networks={
            "jaxnorm": functools.partial(jn.BatchNorm, train=True),
            "flax": functools.partial(nn.BatchNorm, use_running_average=False),
        },
        images={
            "cpu": (64, 32, 32, 3),
            "accelerator": (1024, 32, 32, 3),
            "quick": (8, 16, 16, 3),
        },
    ),
    "layer_norm": _stateless(layer_norm, shapes=ROWS, passes=PASSES_OF_ROWS),
    "rms_norm": _stateless(rms_norm, shapes=ROWS, passes=PASSES_OF_ROWS, params=("scale",)),
    # With channels_last torch is slower for these, by up to 20 times on a CPU.
    "group_norm": _stateless(
        group_norm, shapes=IMAGES, passes=PASSES_OF_IMAGES, channels_last=False
    ),
    "instance_norm": _stateless(
        instance_norm, shapes=IMAGES, passes=PASSES_OF_IMAGES, channels_last=False
    ),
}
