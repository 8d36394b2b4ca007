"""The normalisations that are measured: one row each."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import numpy as np

import jaxnorm.linen as jn
from experiments.benchmarks import batch_norm
from experiments.benchmarks.comparison import STEP
from experiments.benchmarks.layers import Layer

Shape = tuple[int, ...]

MODES = ("eval-forward", "train-forward", "backward", "forward-backward", STEP)


@dataclass(frozen=True)
class Op:
    """A normalisation, as the libraries have it.

    Attributes:
      shapes: of x, on "cpu", on an "accelerator" and if it is to be "quick".
      passes: how often each mode must at least read or write an array of x's size; a
        mode that is not there is not measured.
      reference: `reference(inputs, train=...) -> y` in float64.
      reference_dx: `reference_dx(inputs) -> dx` of the train mode, in float64.
      layers: `build(inputs, dtype) -> Layer` of each JAX library that has it.
      torch: `forward(tensors, train=...) -> y`, or None.
      networks: makes the norm of a network, which is trained with it.
      images: what that network trains on; as `shapes`.
    """

    shapes: Mapping[str, tuple[Shape, ...]]
    passes: Mapping[str, int]
    reference: Callable[..., np.ndarray]
    reference_dx: Callable[..., np.ndarray]
    layers: Mapping[str, Callable[..., Layer]]
    torch: Callable[..., Any] | None = None
    networks: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)
    images: Mapping[str, Shape] = field(default_factory=dict)


RESNET_50 = ((112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))

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
        # The statistics need x before the first y is known: read, read again, write.
        # The backward pass reads x and g for two sums, both again, and writes dx.
        passes={
            "eval-forward": 2,
            "train-forward": 3,
            "backward": 5,
            "forward-backward": 8,
        },
        reference=batch_norm.reference,
        reference_dx=batch_norm.reference_dx,
        layers=batch_norm.LAYERS,
        torch=batch_norm.torch_forward,
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
}
