"""The networks of the sources, in Linen and, in `experiments.models.nnx`, in NNX.

Those in Linen are what the experiments train, and are imported from here.
"""

from experiments.models.linen import Convolutional as Convolutional
from experiments.models.linen import FullyConnected as FullyConnected
from experiments.models.linen import ScaledDense as ScaledDense
from experiments.models.linen import SeedNetwork as SeedNetwork
from experiments.models.linen import parameter_count as parameter_count
from experiments.models.residual import Residual as Residual
