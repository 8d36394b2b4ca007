"""Registers states with `jax.export`, so that a function of them can be saved."""

from jax import export

from jaxnorm.estimators import Averages, Statistics
from jaxnorm.folding import Affine
from jaxnorm.moments import Moments
from jaxnorm.summaries import Summary
from jaxnorm.wrappers import Accumulated, Collected, Guarded

STATES = (Statistics, Averages, Moments, Guarded, Accumulated, Collected, Summary, Affine)

for each in STATES:
    # Saved functions hold this name, which stays, wherever the class may go.
    export.register_namedtuple_serialization(
        each, serialized_name=f"jaxnorm.{each.__name__}"
    )
