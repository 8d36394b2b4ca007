"""Converts weights and statistics of other libraries, without importing them.

`read_weights` reads them from a file, by the library of its format.
"""

from jaxnorm.interop import keras, torch
from jaxnorm.interop.files import read_weights

__all__ = ["keras", "read_weights", "torch"]
