"""Converts weights and statistics from and to torch, as a file or as arrays by name.

The file is one that `jaxnorm.interop.read_weights` reads; the arrays are those of
`state_dict()`, with `.numpy()` called on each. torch is imported for its own files only.
"""

from jaxnorm.interop.torch.instances import tracked_instance_norm
from jaxnorm.interop.torch.models import from_torch, to_torch
from jaxnorm.interop.torch.names import to_state
from jaxnorm.interop.torch.rules import (
    channels_last,
    flattened,
    transposed,
    transposed_padding,
)
from jaxnorm.interop.torch.stateless import group_norm, layer_norm, rms_norm
from jaxnorm.interop.torch.tracked import batch_norm, instance_norm

__all__ = [
    "batch_norm",
    "channels_last",
    "flattened",
    "from_torch",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
    "to_state",
    "to_torch",
    "tracked_instance_norm",
    "transposed",
    "transposed_padding",
]
