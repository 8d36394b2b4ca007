"""Stores a result with the documentation, and writes its tables to the page."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import page
from experiments.harness.console import Refused, console
from experiments.harness.runs import Run

DOCS = Path(__file__).parents[3] / "docs"
KIND = "compiled"


def publish(run: Run, docs: Path = DOCS) -> None:
    """Copies result and figure, and writes the tables into `numerics.md`."""
    result = docs / "numerics" / f"{KIND}.json"
    shutil.copyfile(run.result, result)
    shutil.copyfile(run.figure, result.with_suffix(".png"))
    page.write(KIND, result, docs / "numerics.md")
    console.print(f"published: {result}, and its tables in {docs / 'numerics.md'}")


def refuse_a_part(
    settings: Mapping[str, Any], everything: Mapping[str, Sequence[str]]
) -> None:
    """Refuses settings that leave something out, because the page shows everything.

    Args:
      settings: the settings of a run.
      everything: the settings that must be complete, with the values each must include.
    """
    missing = {
        name: [each for each in whole if each not in settings[name]]
        for name, whole in everything.items()
    }
    lacking = [f"{name} {' '.join(each)}" for name, each in missing.items() if each]
    lacking += ["the shapes of the ops"] if settings["shapes"] else []
    if lacking:
        raise Refused(
            f"--publish: the run is without {', '.join(lacking)}, but the page shows all; "
            "run everything, in another folder with --out."
        )
