"""Flax NNX modules: parameters and state for the norms of `jaxnorm`.

With `import jaxnorm.nnx as jx`, its norms are drop-in replacements for flax.nnx's: they
have the same constructor arguments, and variables of the same names, types and shapes.
"""

from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm
from jaxnorm.nnx.calibration import calibrate
from jaxnorm.nnx.diagnosis import diagnose
from jaxnorm.nnx.filter_response import FilterResponseNorm
from jaxnorm.nnx.folding import fold
from jaxnorm.nnx.freezing import freeze
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
    "freeze",
    "parameter_labels",
]
