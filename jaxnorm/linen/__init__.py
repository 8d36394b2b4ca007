"""Flax Linen modules: parameters and state for the norms of `jaxnorm`.

`import jaxnorm.linen as jn` stands in for `flax.linen` where a norm is made: the
constructor arguments, the names and the shapes of the variables are the same.
"""

from jaxnorm.linen.batch import BatchNorm as BatchNorm
from jaxnorm.linen.batch_renorm import BatchRenorm as BatchRenorm
from jaxnorm.linen.diagnosis import diagnose as diagnose
from jaxnorm.linen.folding import fold as fold
from jaxnorm.linen.group import GroupNorm as GroupNorm
from jaxnorm.linen.instance import InstanceNorm as InstanceNorm
from jaxnorm.linen.labels import parameter_labels as parameter_labels
from jaxnorm.linen.layer import LayerNorm as LayerNorm
from jaxnorm.linen.rms import RMSNorm as RMSNorm
