"""Flax Linen modules: parameters and state for the norms of `jaxnorm`.

With `import jaxnorm.linen as jn`, its norms are drop-in replacements for flax.linen's: they
have the same constructor arguments, and variables of the same names and shapes.
"""

from jaxnorm.linen.batch import BatchNorm
from jaxnorm.linen.batch_renorm import BatchRenorm
from jaxnorm.linen.calibration import calibrate
from jaxnorm.linen.diagnosis import diagnose
from jaxnorm.linen.filter_response import FilterResponseNorm
from jaxnorm.linen.folding import fold
from jaxnorm.linen.freezing import freeze
from jaxnorm.linen.group import GroupNorm
from jaxnorm.linen.instance import InstanceNorm
from jaxnorm.linen.labels import parameter_labels
from jaxnorm.linen.layer import LayerNorm
from jaxnorm.linen.rms import RMSNorm

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
