"""Converts weights and statistics from and to keras, as a file or as arrays by name.

The file is one that `jaxnorm.interop.read_weights` reads, such as a .keras, .weights.h5 or
.h5 file; the arrays are what h5py reads from it, or
`{weight.path: numpy.array(weight) for weight in model.weights}`. Keras is not imported.
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
