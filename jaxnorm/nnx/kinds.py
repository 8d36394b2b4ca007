"""The kinds of NNX modules that are looked for in a model: layers and norms."""

from flax import nnx

from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm
from jaxnorm.nnx.group import GroupNorm
from jaxnorm.nnx.instance import InstanceNorm
from jaxnorm.nnx.layer import LayerNorm
from jaxnorm.nnx.rms import RMSNorm

LAYERS = {
    nnx.Linear: "dense",
    nnx.LinearGeneral: "dense",
    nnx.Conv: "conv",
    nnx.ConvTranspose: "transposed",
}
BATCH = (BatchNorm, BatchRenorm, nnx.BatchNorm)
INSTANCE = (InstanceNorm, nnx.InstanceNorm)
OTHERS = (LayerNorm, RMSNorm, GroupNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm)
NORMS = (*BATCH, *INSTANCE, *OTHERS)
