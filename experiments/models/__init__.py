"""The networks trained in the experiments: the sources' networks, and deep dense ones.

Import the Linen networks, which the experiments train, from here. The sources' networks
also exist in NNX, in `experiments.models.nnx`.
"""

from experiments.models.deep import Deep as Deep
from experiments.models.deep import Norm as Norm
from experiments.models.deep import batch_norm as batch_norm
from experiments.models.deep import batch_renorm as batch_renorm
from experiments.models.deep import group_norm as group_norm
from experiments.models.deep import layer_norm as layer_norm
from experiments.models.linen import Convolutional as Convolutional
from experiments.models.linen import FullyConnected as FullyConnected
from experiments.models.linen import ScaledDense as ScaledDense
from experiments.models.linen import SeedNetwork as SeedNetwork
from experiments.models.linen import parameter_count as parameter_count
from experiments.models.residual import Residual as Residual
