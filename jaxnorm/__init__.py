"""Normalisation for JAX: pure functions, with the running statistics as explicit state.

Flax modules over the same functions are in `jaxnorm.linen`, imported by its own name.
"""

import jaxnorm._serialization  # noqa: F401 (registers the states with jax.export)
from jaxnorm._core.measurement import measure as measure
from jaxnorm._core.measurement import measure_about_zero as measure_about_zero
from jaxnorm._core.measurement import measure_groups as measure_groups
from jaxnorm._core.moments import Moments as Moments
from jaxnorm._core.moments import merge as merge
from jaxnorm._core.moments import pool as pool
from jaxnorm._core.moments import synchronize as synchronize
from jaxnorm._core.normalization import normalize as normalize
from jaxnorm.diagnostics import Diagnosis as Diagnosis
from jaxnorm.diagnostics import NormReport as NormReport
from jaxnorm.model.folding.affine import Affine as Affine
from jaxnorm.model.folding.affine import as_affine as as_affine
from jaxnorm.model.folding.affine import fold_input as fold_input
from jaxnorm.model.folding.affine import fold_output as fold_output
from jaxnorm.model.labels import decay_mask as decay_mask
from jaxnorm.norms.batch import batch_norm as batch_norm
from jaxnorm.norms.batch_renorm import batch_renorm as batch_renorm
from jaxnorm.norms.group import group_norm as group_norm
from jaxnorm.norms.instance import instance_norm as instance_norm
from jaxnorm.norms.layer import layer_norm as layer_norm
from jaxnorm.norms.renorm_limits import renorm_schedule as renorm_schedule
from jaxnorm.norms.rms import rms_norm as rms_norm
from jaxnorm.preprocessing.scaling import mean_normalize as mean_normalize
from jaxnorm.preprocessing.scaling import min_max as min_max
from jaxnorm.preprocessing.scaling import standardize as standardize
from jaxnorm.preprocessing.summary import Summary as Summary
from jaxnorm.preprocessing.summary import fit as fit
from jaxnorm.preprocessing.summary import merge_summaries as merge_summaries
from jaxnorm.preprocessing.summary import summarize as summarize
from jaxnorm.statistics.averages import Averages as Averages
from jaxnorm.statistics.averages import Statistics as Statistics
from jaxnorm.statistics.averages import cumulative as cumulative
from jaxnorm.statistics.averages import ema as ema
from jaxnorm.statistics.averages import population as population
from jaxnorm.statistics.calibration import calibrate as calibrate
from jaxnorm.statistics.calibration import collect_moments as collect_moments
from jaxnorm.statistics.calibration import with_moments as with_moments
from jaxnorm.statistics.estimator import Estimator as Estimator
from jaxnorm.statistics.wrappers import Accumulated as Accumulated
from jaxnorm.statistics.wrappers import Collected as Collected
from jaxnorm.statistics.wrappers import Guarded as Guarded
from jaxnorm.statistics.wrappers import accumulate as accumulate
from jaxnorm.statistics.wrappers import collect as collect
from jaxnorm.statistics.wrappers import skip_nonfinite as skip_nonfinite

__version__ = "0.1.0"
