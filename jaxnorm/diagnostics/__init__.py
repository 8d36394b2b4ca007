"""Diagnosing: what the norms of a model do on a batch, and what is likely wrong with them.

`diagnose` of `jaxnorm.linen` and of `jaxnorm.nnx` makes the `NormReport`.
"""

from jaxnorm.diagnostics.faults import FAULTS, Diagnosis
from jaxnorm.diagnostics.figures import Figures
from jaxnorm.diagnostics.report import NormReport

__all__ = [
    "FAULTS",
    "Diagnosis",
    "Figures",
    "NormReport",
]
