"""Converts weights and statistics from and to keras, as a mapping of names to arrays.

Such a mapping is what h5py reads from a .h5 or .weights.h5 file of Keras 2 or 3, or
`{weight.path: numpy.array(weight) for weight in model.weights}`. Keras itself is not
imported.
"""

from jaxnorm.interop.keras.models import from_keras, to_keras, transposed
from jaxnorm.interop.keras.norms import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    rms_normalization,
    to_weights,
)

__all__ = [
    "batch_normalization",
    "from_keras",
    "group_normalization",
    "layer_normalization",
    "rms_normalization",
    "to_keras",
    "to_weights",
    "transposed",
]
