"""The command line of the benchmarks."""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cases as measured
from experiments.benchmarks import figure, peers, report
from experiments.benchmarks.cases import Case
from experiments.benchmarks.comparison import FIGURES, IMPLEMENTATIONS
from experiments.benchmarks.layers import Shape
from experiments.benchmarks.ops import MODES, OPS
from experiments.harness.console import Refused, console, exit_status
from experiments.harness.options import add_folder
from experiments.harness.runs import Run

NAME = "benchmarks"
DTYPES = ("float32", "bfloat16")
ROUNDS, QUICK_ROUNDS = 31, 5


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=report.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    for option, names in (("--ops", OPS), ("--dtype", DTYPES), ("--modes", MODES)):
        made.add_argument(
            option,
            **several,
            choices=tuple(names),
            default=tuple(names),
            help=f"any of {', '.join(names)} (all)",
        )
    made.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="shapes of x, features last, such as 32x56x56x64 (the op's own)",
    )
    made.add_argument(
        "--quick", action="store_true", help="small shapes, few rounds; takes seconds"
    )
    add_folder(made, NAME, "the result and the figure")
    return made


def shape(text: str, ops: Sequence[str]) -> Shape:
    """Parses a shape such as 32x56x56x64; refuses one on which an op has no variance."""
    sizes = text.split("x")
    if len(sizes) < 2 or not all(each.isdecimal() and int(each) for each in sizes):
        raise Refused(
            f"--shapes {text}: is not a shape of two or more axes, such as 32x56x56x64."
        )
    found = tuple(map(int, sizes))
    for op in ops:
        if OPS[op].pooled(found) < 2:
            raise Refused(
                f"--shapes {text}: {op} needs two or more values that share their moments; "
                "choose other shapes, or other ops with --ops."
            )
    return found


def describe(options: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """Returns the settings that results depend on, beside those every run records."""
    return {
        "experiment": NAME,
        "ops": list(options.ops),
        "dtypes": list(options.dtype),
        "modes": list(options.modes),
        "shapes": options.shapes,
        "quick": options.quick,
        "rounds": rounds,
        "peers": peers.versions(),
        "cores": cores(),
        "processor": processor(),
    }


def cores() -> int | None:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def processor() -> str:
    """Returns the name of the CPU, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def run(arguments: Sequence[str]) -> None:
    """Measures, resumes measuring, or shows a finished run."""
    options = parser().parse_args(arguments)
    shapes = (
        [shape(text, options.ops) for text in options.shapes] if options.shapes else None
    )
    peers.check()
    scale = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    cases = measured.cases(
        options.ops,
        options.dtype,
        [mode for mode in MODES if mode in options.modes],
        shapes,
        "quick" if options.quick else scale,
    )
    if not cases:
        raise Refused("nothing to measure: none of the chosen ops has a chosen mode.")
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    folder = Run(options.out, describe(options, rounds), restart=options.restart)
    results = folder.measurements
    if results is None:
        results = measure(folder, cases, rounds)
        folder.finish(results, [])
    else:
        console.print("this run is finished already; --restart measures again")
    figure.draw(cases, results, folder.figure)
    report.show(cases, results)
    for note in folder.notes:
        console.print(note)
    console.print(f"figure: {folder.figure}, result: {folder.result}")


def measure(folder: Run, cases: list[Case], rounds: int) -> dict[str, Any]:
    """Measures all cases, resuming an interrupted run."""
    absence = peers.absence("torch")
    if absence:
        folder.note(peers.left_out("torch", absence))

    def advance(state: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
        figures = np.array(state["figures"])
        figures[step] = measured.measure(
            cases[step], rounds, torch=absence is None, note=folder.note
        )
        return {"figures": figures}

    nothing = np.full((len(cases), len(IMPLEMENTATIONS), len(FIGURES)), np.nan)
    state = folder.fold(
        advance,
        {"figures": nothing},
        len(cases),
        report.HEADING,
        lambda state, step: report.line(cases[step], state["figures"][step]),
        word="measuring",
    )
    return measured.nested(cases, np.asarray(state["figures"]))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 if refused, 130 if interrupted."""
    return exit_status(lambda: run(arguments))
