"""Normalisation for JAX: pure functions, with the running statistics as explicit state.

Flax modules over the same functions are in `jaxnorm.linen`, imported by its own name.
"""

import jaxnorm.serialization  # noqa: F401 (registers the states with jax.export)
from jaxnorm.calibration import calibrate as calibrate
from jaxnorm.calibration import collect_moments as collect_moments
from jaxnorm.calibration import with_moments as with_moments
from jaxnorm.diagnostics import Diagnosis as Diagnosis
from jaxnorm.diagnostics import NormReport as NormReport
from jaxnorm.estimators import Averages as Averages
from jaxnorm.estimators import Statistics as Statistics
from jaxnorm.estimators import cumulative as cumulative
from jaxnorm.estimators import ema as ema
from jaxnorm.estimators import population as population
from jaxnorm.folding import Affine as Affine
from jaxnorm.folding import as_affine as as_affine
from jaxnorm.folding import fold_input as fold_input
from jaxnorm.folding import fold_output as fold_output
from jaxnorm.labels import decay_mask as decay_mask
from jaxnorm.measurement import measure as measure
from jaxnorm.measurement import measure_about_zero as measure_about_zero
from jaxnorm.measurement import measure_groups as measure_groups
from jaxnorm.moments import Moments as Moments
from jaxnorm.moments import merge as merge
from jaxnorm.moments import pool as pool
from jaxnorm.moments import synchronize as synchronize
from jaxnorm.normalization import normalize as normalize
from jaxnorm.norms.batch import batch_norm as batch_norm
from jaxnorm.norms.batch_renorm import batch_renorm as batch_renorm
from jaxnorm.norms.group import group_norm as group_norm
from jaxnorm.norms.instance import instance_norm as instance_norm
from jaxnorm.norms.layer import layer_norm as layer_norm
from jaxnorm.norms.rms import rms_norm as rms_norm
from jaxnorm.renorm_limits import renorm_schedule as renorm_schedule
from jaxnorm.running import Estimator as Estimator
from jaxnorm.scaling import mean_normalize as mean_normalize
from jaxnorm.scaling import min_max as min_max
from jaxnorm.scaling import standardize as standardize
from jaxnorm.summaries import Summary as Summary
from jaxnorm.summaries import fit as fit
from jaxnorm.summaries import merge_summaries as merge_summaries
from jaxnorm.summaries import summarize as summarize
from jaxnorm.wrappers import Accumulated as Accumulated
from jaxnorm.wrappers import Collected as Collected
from jaxnorm.wrappers import Guarded as Guarded
from jaxnorm.wrappers import accumulate as accumulate
from jaxnorm.wrappers import collect as collect
from jaxnorm.wrappers import skip_nonfinite as skip_nonfinite

__version__ = "0.1.0"
