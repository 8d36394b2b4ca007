"""Weights and statistics of other libraries as jaxnorm's; none of them is imported."""

from jaxnorm.interop import keras as keras
from jaxnorm.interop import torch as torch
