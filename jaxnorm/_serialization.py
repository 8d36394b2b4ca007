"""Registers states with `jax.export`, so that a function of them can be saved."""

from jax import export

from jaxnorm._core.moments import Moments
from jaxnorm.model.folding.affine import Affine
from jaxnorm.preprocessing.summary import Summary
from jaxnorm.statistics.averages import Averages, Statistics
from jaxnorm.statistics.wrappers import Accumulated, Collected, Guarded

STATES = (Statistics, Averages, Moments, Guarded, Accumulated, Collected, Summary, Affine)

for each in STATES:
    # Saved functions hold this name, which stays, wherever the class may go.
    export.register_namedtuple_serialization(
        each, serialized_name=f"jaxnorm.{each.__name__}"
    )
