"""Weights and statistics of keras, from and to a mapping of names to arrays.

Such a mapping is what h5py finds in a .h5 or .weights.h5 file of Keras 2 or 3, or
`{weight.path: numpy.array(weight) for weight in model.weights}`. Keras itself is not
imported.
"""

from jaxnorm.interop.keras.models import from_keras as from_keras
from jaxnorm.interop.keras.models import to_keras as to_keras
from jaxnorm.interop.keras.models import transposed as transposed
from jaxnorm.interop.keras.norms import batch_normalization as batch_normalization
from jaxnorm.interop.keras.norms import group_normalization as group_normalization
from jaxnorm.interop.keras.norms import layer_normalization as layer_normalization
from jaxnorm.interop.keras.norms import rms_normalization as rms_normalization
from jaxnorm.interop.keras.norms import to_weights as to_weights
