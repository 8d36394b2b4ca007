"""Converts weights and statistics of other libraries, without importing them."""

from jaxnorm.interop import keras, torch

__all__ = ["keras", "torch"]
