"""Registers states with `jax.export`, so that a function of them can be saved."""

from jax import export

from jaxnorm._core.moments import Moments
from jaxnorm.model.folding.affine import Affine
from jaxnorm.preprocessing.summary import Summary
from jaxnorm.statistics.averages import CountedStatistics, Statistics
from jaxnorm.statistics.wrappers import AccumulateState, CollectState, SkipNonfiniteState

# Saved functions hold these names, which stay, whatever the classes are called.
STATES = {
    "Statistics": Statistics,
    "Averages": CountedStatistics,
    "Moments": Moments,
    "Guarded": SkipNonfiniteState,
    "Accumulated": AccumulateState,
    "Collected": CollectState,
    "Summary": Summary,
    "Affine": Affine,
}

for name, state in STATES.items():
    export.register_namedtuple_serialization(state, serialized_name=f"jaxnorm.{name}")
