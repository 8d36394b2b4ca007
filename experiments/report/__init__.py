"""Writes one page with all claims and experiments, from the available results.

Prefers results of runs in `results/` to the results published with the repository.
`--publish` is for maintainers: it replaces the published results by the runs, and updates
the table of results in experiments/README.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.claims import CLAIMS
from experiments.harness import argument_types
from experiments.harness.console import console, exit_status
from experiments.report import publishing, reading
from experiments.report.judging import count, said
from experiments.report.page import page


def main(arguments: Sequence[str]) -> int:
    """Writes the page; returns 0, or 2 if the results do not belong together."""
    return exit_status(lambda: _report(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m experiments report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--results",
        type=argument_types.path,
        default=Path("results"),
        help="folder of runs (results; for quick runs, results/quick)",
    )
    made.add_argument(
        "--out",
        type=argument_types.path,
        help="path of the page (report.html in the folder of runs)",
    )
    made.add_argument(
        "--publish", action="store_true", help="copy the runs to experiments/published"
    )
    return made


def _report(chosen: argparse.Namespace) -> None:
    if chosen.publish:
        publishing.publish(chosen.results)
        console.print(f"published: {reading.PUBLISHED}")
    studies = reading.read(chosen.results)
    if all(each.published for each in studies.values()):
        console.print(f"no study was run in {chosen.results}: all is as published")
    path = chosen.out or chosen.results / "report.html"
    reading.write(path, page(studies))
    console.print(f"{said(count(CLAIMS, studies.values()))}\npage: {path}")
