"""The report of a diagnosis: figures and faults of each norm, as text, plot or JSON."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.diagnostics.faults import Diagnosis, Note
from jaxnorm.diagnostics.gap import Gap
from jaxnorm.diagnostics.metrics import NormMetrics
from jaxnorm.diagnostics.observing import Unexamined
from jaxnorm.diagnostics.settings import Setting
from jaxnorm.diagnostics.table import table


@dataclass(frozen=True)
class NormReport:
    """What the norms of a model do on some batches, and what is probably wrong.

    `print` shows it as a table.

    Attributes:
      norms: the NormMetrics of each norm, in the order of their calls.
      gap: how far the output in evaluation differs from training.
      diagnoses: what is probably wrong; empty if all is well.
      notes: facts that need not be wrong, such as dead features.
      unexamined: norms of the model of which nothing is known, and modules that may be
        norms, but do not describe themselves.
    """

    norms: tuple[NormMetrics, ...]
    gap: Gap
    diagnoses: tuple[Diagnosis, ...]
    notes: tuple[Note, ...] = ()
    unexamined: tuple[Unexamined, ...] = ()

    def __str__(self) -> str:
        return table(self.norms, self.diagnoses, self.notes, self.gap, self.unexamined)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a dict that `json.dumps(…, allow_nan=False)` accepts.

        Arrays become lists, with a value for each feature. Non-finite values become the
        strings "nan", "inf" and "-inf", which `float` reads; missing values are None.
        """
        return {
            "norms": [_plain(_fields(norm)) for norm in self.norms],
            "gap": _plain(_fields(self.gap)),
            "diagnoses": [each._asdict() for each in self.diagnoses],
            "notes": [each._asdict() for each in self.notes],
            "unexamined": [_fields(each) for each in self.unexamined],
        }

    def plot(self, path: str | Path | None = None) -> Any:
        """Returns a matplotlib Figure of the report, and writes it to `path` if given.

        Raises an ImportError if matplotlib is not installed.
        """
        # Imported here because nothing else in jaxnorm needs matplotlib.
        from jaxnorm.diagnostics.drawing import draw

        figure = draw(self.norms, self.diagnoses)
        if path is not None:
            figure.savefig(path, dpi=100)
        return figure


def _fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, by name; not recursive."""
    return {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Setting):
        return _plain(_fields(value))
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
