"""Normalisation for JAX: pure functions, with the running statistics as explicit state.

The public API is what `__all__` names here and in `jaxnorm.linen`, `jaxnorm.nnx`,
`jaxnorm.diagnostics`, `jaxnorm.interop`, `jaxnorm.interop.torch` and
`jaxnorm.interop.keras`; the modules that define it may change. `jaxnorm.linen`,
`jaxnorm.nnx` and `jaxnorm.interop` are imported on first use, so that `import jaxnorm`
imports no framework.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import jaxnorm._serialization  # noqa: F401 (registers the states with jax.export)
from jaxnorm._core.measurement import measure, measure_about_zero, measure_groups
from jaxnorm._core.moments import Moments, merge, pool, synchronize
from jaxnorm._core.normalization import normalize
from jaxnorm.diagnostics import Diagnosis, NormReport
from jaxnorm.model.folding.affine import Affine, as_affine, fold_input, fold_output
from jaxnorm.model.labels import decay_mask
from jaxnorm.model.spec import NormSpec
from jaxnorm.norms.batch import batch_norm
from jaxnorm.norms.batch_renorm import batch_renorm
from jaxnorm.norms.filter_response import filter_response_norm
from jaxnorm.norms.group import group_norm
from jaxnorm.norms.instance import instance_norm
from jaxnorm.norms.layer import layer_norm
from jaxnorm.norms.renorm_limits import renorm_schedule
from jaxnorm.norms.rms import rms_norm
from jaxnorm.preprocessing.scaling import mean_normalize, min_max, standardize
from jaxnorm.preprocessing.summary import Summary, fit, merge_summaries, summarize
from jaxnorm.statistics.averages import (
    CountedStatistics,
    Statistics,
    cumulative,
    ema,
    population,
)
from jaxnorm.statistics.calibration import calibrate, collect_moments, with_moments
from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.wrappers import (
    AccumulateState,
    CollectState,
    SkipNonfiniteState,
    accumulate,
    collect,
    skip_nonfinite,
)

if TYPE_CHECKING:
    from jaxnorm import interop as interop
    from jaxnorm import linen as linen
    from jaxnorm import nnx as nnx

__version__ = "0.1.0"

__all__ = [
    "AccumulateState",
    "Affine",
    "CollectState",
    "CountedStatistics",
    "Diagnosis",
    "Estimator",
    "Moments",
    "NormReport",
    "NormSpec",
    "SkipNonfiniteState",
    "Statistics",
    "Summary",
    "accumulate",
    "as_affine",
    "batch_norm",
    "batch_renorm",
    "calibrate",
    "collect",
    "collect_moments",
    "cumulative",
    "decay_mask",
    "ema",
    "filter_response_norm",
    "fit",
    "fold_input",
    "fold_output",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "mean_normalize",
    "measure",
    "measure_about_zero",
    "measure_groups",
    "merge",
    "merge_summaries",
    "min_max",
    "normalize",
    "pool",
    "population",
    "renorm_schedule",
    "rms_norm",
    "skip_nonfinite",
    "standardize",
    "summarize",
    "synchronize",
    "with_moments",
]

_MODULES = ("interop", "linen", "nnx")
# Old names, which work for one release.
_RENAMED = {
    "Accumulated": "AccumulateState",
    "Averages": "CountedStatistics",
    "Collected": "CollectState",
    "Guarded": "SkipNonfiniteState",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxnorm.{name}")
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"jaxnorm.{name} is deprecated and will be removed in jaxnorm 0.3; it is now "
            f"jaxnorm.{new}.",
            DeprecationWarning,
            stacklevel=2,
        )
        return globals()[new]
    raise AttributeError(f"module 'jaxnorm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_MODULES, "__version__"))
