"""Diagnostics: what the norms of a model do on a batch, and what is probably wrong.

`jaxnorm.linen.diagnose` and `jaxnorm.nnx.diagnose` return a `NormReport`.
"""

from jaxnorm.diagnostics.faults import FAULTS, NOTES, Diagnosis, Note
from jaxnorm.diagnostics.metrics import NormMetrics
from jaxnorm.diagnostics.observing import Unexamined
from jaxnorm.diagnostics.report import NormReport

__all__ = [
    "FAULTS",
    "NOTES",
    "Diagnosis",
    "NormMetrics",
    "NormReport",
    "Note",
    "Unexamined",
]
