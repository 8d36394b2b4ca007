"""Normalisation for JAX: pure functions, with the running statistics as explicit state.

Flax modules over the same functions are in `jaxnorm.linen`, imported by its own name.
"""

from jaxnorm.measurement import measure as measure
from jaxnorm.measurement import measure_about_zero as measure_about_zero
from jaxnorm.measurement import measure_groups as measure_groups
from jaxnorm.moments import Moments as Moments
from jaxnorm.moments import merge as merge
from jaxnorm.moments import pool as pool
from jaxnorm.moments import synchronize as synchronize
from jaxnorm.normalization import normalize as normalize
from jaxnorm.norms.batch import batch_norm as batch_norm
from jaxnorm.norms.group import group_norm as group_norm
from jaxnorm.norms.instance import instance_norm as instance_norm
from jaxnorm.norms.layer import layer_norm as layer_norm
from jaxnorm.norms.rms import rms_norm as rms_norm
from jaxnorm.running import Estimator as Estimator
from jaxnorm.running import Statistics as Statistics
from jaxnorm.running import ema as ema

__version__ = "0.1.0"
