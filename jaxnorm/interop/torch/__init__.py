"""Weights and statistics of torch, from and to a mapping of names to arrays.

Such a mapping is what safetensors gives, or `state_dict()` with `.numpy()` of each
tensor. torch itself is not imported.
"""

from jaxnorm.interop.torch.instances import tracked_instance_norm as tracked_instance_norm
from jaxnorm.interop.torch.models import from_torch as from_torch
from jaxnorm.interop.torch.models import to_torch as to_torch
from jaxnorm.interop.torch.names import to_state as to_state
from jaxnorm.interop.torch.rules import channels_last as channels_last
from jaxnorm.interop.torch.rules import flattened as flattened
from jaxnorm.interop.torch.rules import transposed as transposed
from jaxnorm.interop.torch.rules import transposed_padding as transposed_padding
from jaxnorm.interop.torch.stateless import group_norm as group_norm
from jaxnorm.interop.torch.stateless import layer_norm as layer_norm
from jaxnorm.interop.torch.stateless import rms_norm as rms_norm
from jaxnorm.interop.torch.tracked import batch_norm as batch_norm
from jaxnorm.interop.torch.tracked import instance_norm as instance_norm
