"""The result of a check, written after each part, so that an interrupt loses little."""

import json
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np

import jaxnorm
from experiments.harness.status import Refused

NAME = "device_check"


class Result:
    """A JSON file with the results so far.

    Args:
      path: the path of the file.
      settings: the settings of the run.

    Raises:
      Refused: the file cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self._notes: list[str] = []
        self._measurements: dict[str, Any] = {}
        self._head = {
            "settings": {"experiment": NAME, **settings},
            "versions": {
                each.__name__: each.__version__ for each in (jaxnorm, jax, jaxlib, flax, np)
            },
            "device": jax.devices()[0].device_kind,
        }
        self.write(0.0)

    @property
    def content(self) -> dict[str, Any]:
        """Everything in the file except the seconds."""
        return self._head | {"notes": self._notes, "measurements": self._measurements}

    def note(self, text: str) -> None:
        """Adds something a reader must know, such as what was left out."""
        self._notes.append(text)

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Adds a row to a part."""
        self._measurements.setdefault(part, []).append(row)

    def write(self, seconds: float) -> None:
        """Replaces the file atomically, so that it is complete whenever a run ends."""
        text = json.dumps(self.content | {"seconds": round(seconds, 1)}, indent=1)
        beside = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text + "\n", encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise Refused(
                f"{self.path}: cannot be written ({error.strerror}); choose another folder "
                "with --out."
            ) from error
