"""The kinds of Linen modules that are looked for in a model: layers and norms."""

import flax.linen as nn

from jaxnorm.linen.batch import BatchNorm
from jaxnorm.linen.batch_renorm import BatchRenorm
from jaxnorm.linen.group import GroupNorm
from jaxnorm.linen.instance import InstanceNorm
from jaxnorm.linen.layer import LayerNorm
from jaxnorm.linen.rms import RMSNorm

LAYERS = {
    nn.Dense: "dense",
    nn.DenseGeneral: "dense",
    nn.Conv: "conv",
    nn.ConvTranspose: "transposed",
}
BATCH = (BatchNorm, BatchRenorm, nn.BatchNorm)
INSTANCE = (InstanceNorm, nn.InstanceNorm)
OTHERS = (LayerNorm, RMSNorm, GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
NORMS = (*BATCH, *INSTANCE, *OTHERS)
