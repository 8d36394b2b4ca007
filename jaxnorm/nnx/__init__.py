"""Flax NNX modules: parameters and state for the norms of `jaxnorm`.

Norms from `import jaxnorm.nnx as jx` are drop-in replacements for those of `flax.nnx`: the
constructor arguments and the names, types and shapes of the variables are the same.
"""

from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm
from jaxnorm.nnx.calibration import calibrate
from jaxnorm.nnx.diagnosis import diagnose
from jaxnorm.nnx.filter_response import FilterResponseNorm
from jaxnorm.nnx.folding import fold
from jaxnorm.nnx.group import GroupNorm
from jaxnorm.nnx.instance import InstanceNorm
from jaxnorm.nnx.labels import parameter_labels
from jaxnorm.nnx.layer import LayerNorm
from jaxnorm.nnx.rms import RMSNorm

__all__ = [
    "BatchNorm",
    "BatchRenorm",
    "FilterResponseNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "RMSNorm",
    "calibrate",
    "diagnose",
    "fold",
    "parameter_labels",
]
