"""The command line of the study."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group

from experiments.benchmarks import accuracy, peers
from experiments.benchmarks.accuracy import errors, figure
from experiments.benchmarks.accuracy.errors import Case
from experiments.benchmarks.accuracy.tables import DTYPES, FIGURES, NAMES, tables
from experiments.benchmarks.comparison import OURS, PEERS
from experiments.benchmarks.layers import Shape
from experiments.benchmarks.tables import terminal, two_digits
from experiments.harness.console import console, exit_status
from experiments.harness.options import add_folder
from experiments.harness.results import Verdict, show
from experiments.harness.runs import Run

NAME = "accuracy"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.benchmarks.{NAME}",
        description=accuracy.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="less data and fewer means")
    add_folder(made, NAME, "the result and the figure")
    return made


def run(arguments: Sequence[str]) -> None:
    """Measures, resumes measuring, or shows a finished run."""
    options = parser().parse_args(arguments)
    shape = errors.QUICK_SHAPE if options.quick else errors.SHAPE
    settings: dict[str, Any] = {
        "experiment": NAME,
        "quick": options.quick,
        "shape": list(shape),
        "peers": peers.versions(),
    }
    folder = Run(options.out, settings, restart=options.restart)
    measurements = folder.measurements
    if measurements is None:
        measurements = measure(folder, errors.cases(quick=options.quick), shape)
        folder.finish(measurements, [each.as_dict() for each in verdicts(measurements)])
    else:
        console.print("this run is finished already; --restart measures again")
    figure.draw(measurements, bounds(measurements, shape), folder.figure)
    drawn = Group(*(terminal(each) for each in tables(measurements)))
    show(drawn, verdicts(measurements), folder)


def measure(folder: Run, cases: list[Case], shape: Shape) -> dict[str, Any]:
    """Measures all cases, resuming an interrupted run."""
    reasons = {name: peers.absence(name) for name in PEERS}
    for name, reason in reasons.items():
        if reason:
            folder.note(peers.left_out(name, reason))
    absent = frozenset(name for name, reason in reasons.items() if reason)

    def advance(state: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
        figures, deviations = (np.array(state[each]) for each in ("figures", "deviations"))
        inputs = errors.draw(cases[step], shape)
        figures[step] = errors.measure(cases[step], inputs, absent, folder.note)
        deviations[step] = np.asarray(inputs.x, np.float64).std(0).mean()
        return {"figures": figures, "deviations": deviations}

    nothing = {
        "figures": np.full((len(cases), len(NAMES), len(FIGURES)), np.nan),
        "deviations": np.full(len(cases), np.nan),
    }
    state = folder.fold(
        advance,
        nothing,
        len(cases),
        f"{'error of y':<20} " + " ".join(f"{name:>16}" for name in NAMES),
        lambda state, step: line(cases[step], state["figures"][step]),
        word="measuring",
    )
    return errors.nested(cases, *(np.asarray(state[each]) for each in nothing))


def line(case: Case, figures: np.ndarray) -> str:
    """Returns the errors of y of a case, below the heading."""
    cells = " ".join(f"{two_digits(each):>16}" for each in figures[:, 0])
    return f"{f'{case.dtype}, μ = {case.mean:g}':<20} {cells}"


def bounds(measurements: dict[str, Any], shape: Shape) -> np.ndarray:
    """Returns the smallest bound of any element of y, at each mean in float32."""
    least = []
    for mean in measurements["float32"]["mean"]:
        inputs = errors.draw(Case("float32", mean), shape)
        least.append(errors.bound(inputs, np.zeros(shape)).min())
    return np.array(least)


def verdicts(measurements: dict[str, Any]) -> list[Verdict]:
    """Returns whether jaxnorm keeps its bound at every mean, for each dtype."""
    found = []
    for dtype in DTYPES:
        table = measurements[dtype]
        shares = np.asarray(table["implementations"][OURS]["of_bound"], float)
        worst = int(np.argmax(np.where(np.isnan(shares), np.inf, shares)))
        found.append(
            Verdict(
                f"jaxnorm, {dtype}: no y is off by more than "
                "4·2⁻²³·(1 + |μ|/σ)·max(1, |y|), at any mean",
                (),
                bool((shares <= 1).all()),
                f"at most {shares[worst]:.2g} of the bound, "
                f"at μ = {table['mean'][worst]:g}",
            )
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 if refused, 130 if interrupted."""
    return exit_status(lambda: run(arguments))
