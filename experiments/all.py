"""Runs all studies one after another, except those that are already finished."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.harness import argument_types
from experiments.harness.console import console, exit_status, progress_bar
from experiments.harness.listing import STUDIES, module
from experiments.harness.study import Study


def main(arguments: Sequence[str]) -> int:
    """Runs all studies; returns the exit status: 0, 2 if one refused, 130 if interrupted.

    A study that refuses to run does not stop the others.
    """
    statuses: list[int] = []

    def run() -> None:
        statuses.extend(run_all(parser().parse_args(arguments)))

    interrupted = exit_status(run)
    return interrupted or max(statuses, default=0)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options, which are passed on to each study."""
    made = argparse.ArgumentParser(prog="python -m experiments all", description=__doc__)
    made.add_argument("--quick", action="store_true", help="small runs, on digits")
    made.add_argument("--restart", action="store_true", help="run all of them again")
    made.add_argument(
        "--out",
        type=argument_types.path,
        metavar="DIR",
        help="folder with one folder per study (results, or results/quick with --quick)",
    )
    return made


def run_all(chosen: argparse.Namespace) -> Sequence[int]:
    """Returns the exit status of each study; an interrupt ends the whole sequence."""
    folder = chosen.out or Path("results", *["quick"] * chosen.quick)
    flags = [f"--{each}" for each in ("quick", "restart") if getattr(chosen, each)]
    statuses = []
    with progress_bar() as progress:
        task = progress.add_task("all studies", total=len(STUDIES))
        for name in STUDIES:
            console.rule(name)
            study: Study = importlib.import_module(module(name)).STUDY
            status = study([*flags, "--out", str(folder / name)], progress)
            statuses.append(status)
            if status == 130:
                break
            progress.advance(task)
    return statuses


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
