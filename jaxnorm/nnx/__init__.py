"""Flax NNX modules: parameters and state for the norms of `jaxnorm`.

`import jaxnorm.nnx as jx` stands in for `flax.nnx` where a norm is made: the constructor
arguments, the names, types and shapes of the variables are the same.
"""

from jaxnorm.nnx.batch import BatchNorm as BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm as BatchRenorm
from jaxnorm.nnx.calibration import calibrate as calibrate
from jaxnorm.nnx.diagnosis import diagnose as diagnose
from jaxnorm.nnx.folding import fold as fold
from jaxnorm.nnx.group import GroupNorm as GroupNorm
from jaxnorm.nnx.instance import InstanceNorm as InstanceNorm
from jaxnorm.nnx.labels import parameter_labels as parameter_labels
from jaxnorm.nnx.layer import LayerNorm as LayerNorm
from jaxnorm.nnx.rms import RMSNorm as RMSNorm
