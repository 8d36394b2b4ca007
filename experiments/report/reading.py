"""The available results: those of runs here, otherwise the published ones."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.harness.console import Refused
from experiments.harness.listing import PUBLISHED, STUDIES, SUMMARY
from experiments.harness.results import Verdict
from experiments.harness.runs import read_sealed

KEPT = ("settings", "versions", "code", "device", "seconds", "notes", "table", "verdicts")


@dataclass(frozen=True)
class Finished:
    """What is shown of a finished study.

    Attributes:
      name: the name of its module.
      result: the stored part of its `result.json`.
      figure: the path of the figure.
      published: whether it came with the repository instead of a run here.
    """

    name: str
    result: dict[str, Any]
    figure: Path
    published: bool

    @property
    def verdicts(self) -> list[Verdict]:
        return [
            Verdict(**each | {"rows": tuple(each["rows"])})
            for each in self.result["verdicts"]
        ]

    @property
    def rows(self) -> set[int]:
        return {row for each in self.verdicts for row in each.rows}

    @property
    def quick(self) -> bool:
        return self.result["settings"].get("quick", False)

    @property
    def minutes(self) -> float:
        return self.result["seconds"] / 60

    @property
    def origin(self) -> str:
        return "published" if self.published else "run here"


Studies = dict[str, Finished]


def read(results: Path, published: Path = PUBLISHED) -> Studies:
    """Reads every finished study, in the order of the list.

    Published results stand in for studies that were not run here, except beside quick
    runs, with which they are not comparable.
    """
    here = read_runs(results)
    quick = any(each.quick for each in here.values())
    found = ({} if quick else read_published(published)) | here
    return {name: found[name] for name in STUDIES if name in found}


def read_runs(results: Path) -> Studies:
    """Reads the finished studies in a folder; refuses those that do not belong together."""
    found = {}
    for name in STUDIES:
        path = results / name / "result.json"
        if path.exists():
            figure = path.with_name("figure.png")
            if not figure.exists():
                raise Refused(
                    f"{figure}: is missing; `python -m experiments {name} --out "
                    f"{path.parent}` draws it again."
                )
            found[name] = Finished(name, _kept(path), figure, published=False)
    refuse_what_differs(found)
    return found


def refuse_what_differs(studies: Studies) -> None:
    """Refuses a mix of quick and full runs, or of versions: they are not comparable."""
    for one, other in itertools.pairwise(studies.values()):
        mend = "run one again with --restart, or choose another folder with --results."
        if one.quick != other.quick:
            quick, full = (one, other) if one.quick else (other, one)
            raise Refused(
                f"{quick.name} is of a --quick run and {full.name} of a full one; {mend}"
            )
        versions = [each.result["versions"] for each in (one, other)]
        if versions[0] != versions[1]:
            differing = [
                f"{name} {version} and {versions[1].get(name)}"
                for name, version in versions[0].items()
                if version != versions[1].get(name)
            ]
            raise Refused(
                f"{one.name} and {other.name} are from different versions "
                f"({', '.join(differing)}); {mend}"
            )


def read_published(folder: Path = PUBLISHED) -> Studies:
    """Reads the studies whose results come with the repository."""
    summary = folder / SUMMARY
    if not summary.exists():
        return {}
    return {
        name: Finished(name, result, folder / f"{name}.png", published=True)
        for name, result in json.loads(summary.read_text(encoding="utf-8")).items()
    }


def _kept(path: Path) -> dict[str, Any]:
    try:
        content = read_sealed(path)
        kept = {name: content[name] for name in KEPT}
        float(kept["seconds"])
        for each in kept["verdicts"]:
            _ = Verdict(**each).rows
        _ = kept["table"]["title"], kept["table"]["headings"], kept["table"]["rows"]
        return kept
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{path}: is not the result of a run ({type(error).__name__}: {error}); "
            "move it away."
        ) from error


def write(path: Path, text: str) -> None:
    """Writes the file, and creates its folder if needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path}: cannot be written ({error.strerror}).") from error
