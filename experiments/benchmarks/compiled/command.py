"""The command line."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks import compiled
from experiments.benchmarks.compiled import (
    figure,
    measuring,
    planning,
    publishing,
    targets,
)
from experiments.benchmarks.compiled.planning import DEVICES, Part
from experiments.benchmarks.compiled.programs import LIBRARIES, OPS, PROGRAMS
from experiments.benchmarks.compiled.tables import passes, tables
from experiments.benchmarks.tables import terminal
from experiments.harness.console import console, exit_status
from experiments.harness.options import add_folder
from experiments.harness.runs import Run

NAME = "compiled"
DTYPES = ("bfloat16", "float32")
EVERYTHING = {
    "platforms": targets.PLATFORMS,
    "ops": tuple(OPS),
    "libs": tuple(LIBRARIES),
    "dtypes": DTYPES,
    "programs": PROGRAMS,
    "devices": DEVICES,
}
WIDTH = 100  # of a table
HEADING = "passes over x, or on several devices collectives:"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.benchmarks.{NAME}",
        description=compiled.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    made.add_argument(
        "--platform",
        **several,
        choices=targets.PLATFORMS,
        help="of gpu, tpu (those that can be compiled for)",
    )
    for name in ("ops", "libs", "dtypes", "programs", "devices"):
        made.add_argument(
            f"--{name}",
            **several,
            choices=EVERYTHING[name],
            default=EVERYTHING[name],
            help=f"of {', '.join(EVERYTHING[name])} (all)",
        )
    made.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="of x on 1 device, features last, as 256x56x56x64 (those of the op)",
    )
    _add_purposes(made)
    add_folder(made, NAME, "the result and the figure")
    return made


def _add_purposes(made: argparse.ArgumentParser) -> None:
    """The options for another end than a result and its figure."""
    made.add_argument(
        "--kernels",
        action="store_true",
        help="print what each kernel reads and writes, and keep no result",
    )
    made.add_argument(
        "--publish",
        action="store_true",
        help="put the result, its figure and its tables into docs",
    )


def describe(options: argparse.Namespace, platforms: Sequence[str]) -> dict[str, Any]:
    """What results depend on, beside what every run records."""
    return {
        "experiment": NAME,
        "platforms": list(platforms),
        **{
            name: list(getattr(options, name)) for name in EVERYTHING if name != "platforms"
        },
        "shapes": options.shapes,
        "compilers": targets.versions(platforms),
    }


def run(arguments: Sequence[str]) -> None:
    """Compiles and counts, or goes on, or shows what is finished."""
    options = parser().parse_args(arguments)
    for op in options.ops:
        planning.shapes_of(op, options.shapes)  # refused before a compiler is loaded
    platforms, left_out = targets.chosen(options.platform)
    if options.kernels:
        for case in planning.cases(options, platforms):
            console.print("\n".join(measuring.lines(case, options.programs)))
        return
    settings, parts = describe(options, platforms), planning.parts(options, platforms)
    if options.publish:
        publishing.refuse_a_part(settings, EVERYTHING)
    folder = Run(options.out, settings, restart=options.restart)
    results = folder.measurements
    if results is None:
        for note in left_out:
            folder.note(note)
        results = measure(folder, parts)
        folder.finish(results, [])
    else:
        console.print("this run is finished already; --restart measures again")
        results = planning.arranged(results, parts)
    show(folder, results)
    if options.publish:
        publishing.publish(folder)


def measure(folder: Run, parts: Mapping[str, Part]) -> dict[str, Any]:
    """All parts, from where the run was stopped if it was."""
    computed = {name: part.compute for name, part in parts.items()}
    found = folder.collect(computed, HEADING, line)
    return planning.nested((parts[name].path, figures) for name, figures in found.items())


def line(name: str, figures: Mapping[str, Any]) -> str:
    """What a part gave."""
    cells = []
    for program in PROGRAMS:
        if program in figures and "read" in figures[program]:
            cells.append(f"{program} {passes(figures, program):.1f}")
        elif program in figures:
            cells.append(f"{program} {figures[program]['collectives']:.0f}")
    return f"{name:<58} {', '.join(cells)}"


def show(folder: Run, results: Mapping[str, Any]) -> None:
    """The tables, the figure where there is something to compare, and where both are."""
    for table in tables(results):
        drawn = terminal(table)
        if console.width < WIDTH:  # cells, which have no space, would be cut
            drawn.width = WIDTH
        console.print(drawn)
    for note in folder.notes:
        console.print(note)
    drawn = "no figure without passes of both libraries"
    if figure.ratios(results):
        figure.draw(results, folder.figure)
        drawn = f"figure: {folder.figure}"
    console.print(f"{drawn}, result: {folder.result}")


def main(arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused, or 130 if interrupted."""
    return exit_status(lambda: run(arguments))
