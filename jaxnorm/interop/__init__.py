"""Weights and statistics of other libraries as jaxnorm's; none of them is imported."""

from jaxnorm.interop import keras, torch

__all__ = ["keras", "torch"]
