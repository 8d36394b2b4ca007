"""Converts weights and statistics of other libraries, from files or from arrays by name.

`read_weights` imports the library that reads a file; nothing else imports one.
"""

from jaxnorm.interop import keras, torch
from jaxnorm.interop.files import read_weights

__all__ = ["keras", "read_weights", "torch"]
