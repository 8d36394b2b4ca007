"""The command line of the counts of compiled programs."""

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
WIDTH = 100  # width of a table
HEADING = "passes over x, or on several devices collectives:"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
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
        help="gpu, tpu or both (all that can be compiled for)",
    )
    for name in ("ops", "libs", "dtypes", "programs", "devices"):
        made.add_argument(
            f"--{name}",
            **several,
            choices=EVERYTHING[name],
            default=EVERYTHING[name],
            help=f"any of {', '.join(EVERYTHING[name])} (all)",
        )
    made.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="shapes of x on 1 device, features last, such as 256x56x56x64 (the op's own)",
    )
    _add_purposes(made)
    add_folder(made, NAME, "the result and the figure")
    return made


def _add_purposes(made: argparse.ArgumentParser) -> None:
    """Adds the options for other purposes than a result and its figure."""
    made.add_argument(
        "--kernels",
        action="store_true",
        help="print what each kernel reads and writes, without storing a result",
    )
    made.add_argument(
        "--publish",
        action="store_true",
        help="put the result, its figure and its tables into docs",
    )


def describe(options: argparse.Namespace, platforms: Sequence[str]) -> dict[str, Any]:
    """Returns the settings that results depend on, beside those every run records."""
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
    """Compiles and counts, resumes, or shows a finished run."""
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
    """Computes all parts, resuming an interrupted run."""
    computed = {name: part.compute for name, part in parts.items()}
    found = folder.collect(computed, HEADING, line)
    return planning.nested((parts[name].path, figures) for name, figures in found.items())


def line(name: str, figures: Mapping[str, Any]) -> str:
    """Returns the line of a part."""
    cells = []
    for program in PROGRAMS:
        if program in figures and "read" in figures[program]:
            cells.append(f"{program} {passes(figures, program):.1f}")
        elif program in figures:
            cells.append(f"{program} {figures[program]['collectives']:.0f}")
    return f"{name:<58} {', '.join(cells)}"


def show(folder: Run, results: Mapping[str, Any]) -> None:
    """Prints the tables, draws the figure if both libraries are there, and prints paths."""
    for table in tables(results):
        drawn = terminal(table)
        if console.width < WIDTH:  # cells have no spaces, and would be cut off
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
    """Returns the exit status: 0, 2 if refused, 130 if interrupted."""
    return exit_status(lambda: run(arguments))
