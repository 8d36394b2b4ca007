"""The command line of the check."""

import argparse
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import device_check
from experiments.device_check import (
    checks,
    compiling,
    constants,
    correctness,
    formulas,
    kernels,
    report,
    shapes,
    steps,
    timing,
)
from experiments.device_check.budget import Budget
from experiments.device_check.result import NAME, Result
from experiments.harness import argument_types
from experiments.harness.status import Interrupted, Refused, exit_status

BUDGET = 330.0  # seconds, out of six minutes including start and end
FAILED = "Failed:"
THIN = 7  # a rehearsal runs every seventh check

CHECKS: dict[str, Callable[[], list[checks.Check]]] = {
    "table": correctness.table,
    "stable": correctness.stable,
    "constants": constants.constants,
    "formulas": formulas.formulas,
    "kernels": kernels.kernels,
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.{NAME}",
        description=device_check.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--out",
        type=argument_types.path,
        metavar="DIR",
        default=Path("results") / NAME,
        help=f"folder for the result (results/{NAME}); an earlier one is replaced",
    )
    made.add_argument(
        "--budget",
        type=argument_types.seconds,
        metavar="SECONDS",
        default=BUDGET,
        help=f"start nothing new after this time ({BUDGET:.0f})",
    )
    made.add_argument(
        "--rehearse",
        action="store_true",
        help="run all parts on few and tiny arrays, on any device; its times say nothing",
    )
    return made


def check_backend() -> None:
    """Refuses a machine on which jax does not use a GPU."""
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # raised by jax without any device
        raise Refused(
            f"jax finds no device ({compiling.reason(error)}); the check needs a GPU and "
            "a jax that uses it."
        ) from error
    if found != "gpu":
        raise Refused(
            f"jax runs on {found} here; the check needs a GPU and a jax that uses it "
            "(pip install 'jax[cuda13]'). --rehearse runs all parts without a GPU."
        )


def run(arguments: Sequence[str]) -> bool:
    """Measures, writes and shows; returns whether everything jaxnorm relies on is right."""
    options = parser().parse_args(arguments)
    budget = Budget(options.budget)
    if not options.rehearse:
        check_backend()
    settings = {"rehearsal": options.rehearse, "budget": options.budget}
    result = Result(options.out / "result.json", settings)
    try:
        for part, rows in _parts(budget, rehearse=options.rehearse):
            try:
                _collect(part, rows, result, budget)
            except Exception as error:  # the other parts can still be measured
                traceback.print_exc()
                result.note(f"{FAILED} {part}: {compiling.reason(error)}.")
            result.write(budget.spent)
    except KeyboardInterrupt:
        result.note("The run was interrupted.")
        raise Interrupted(f"interrupted; partial result in {result.path}.") from None
    finally:
        result.write(budget.spent)
    return show(result)


Rows = Iterable[dict[str, Any] | str]


def _parts(budget: Budget, *, rehearse: bool) -> Iterable[tuple[str, Rows]]:
    """Yields the parts, the most important first; their rows are computed when read."""
    every = THIN if rehearse else 1
    for part, make in CHECKS.items():
        yield part, _checked(make, every, budget)
    effort = timing.REHEARSAL if rehearse else timing.FULL
    first = shapes.REHEARSED if rehearse else shapes.FIRST
    yield "times", timing.measure(shapes.timed(first), effort, budget)
    rounds, calls = (2, 2) if rehearse else (7, 3)
    make_networks = steps.rehearsed if rehearse else steps.networks
    for dtype, rest in (("bfloat16", shapes.REST), ("float32", {})):
        if dtype == "bfloat16" or not rehearse:
            yield "networks", steps.measure(make_networks(dtype), rounds, calls, budget)
            if not rehearse:
                yield "times", timing.measure(shapes.timed(rest), effort, budget)


def _checked(make: Callable[[], list[checks.Check]], every: int, budget: Budget) -> Rows:
    yield from checks.run(make()[::every], budget)


def _collect(part: str, rows: Rows, result: Result, budget: Budget) -> None:
    """Adds rows, and notes for those left out; reports each on stderr."""
    for row in rows:
        if isinstance(row, str):
            result.note(f"Left out: {row}.")
            budget.tell(f"left out: {row}")
            continue
        result.add(part, row)
        budget.tell(line(part, row))


def line(part: str, row: dict[str, Any]) -> str:
    """Formats a row as a line of progress."""
    if "shares" in row:
        verdict = "right" if row["passed"] else row.get("error", "WRONG")
        most = max(row["shares"].values(), default=float("nan"))
        note = "" if row["required"] else " (not used here)"
        return f"{part}: {row['name']}: {verdict}{note}, {most:.2g} of the allowed error"
    times = ", ".join(f"{name} {each[0]:.5g}" for name, each in row["microseconds"].items())
    what = row.get("network") or f"{row['op']} {row['mode']}"
    return f"{part}: {what} {row['shape']} {row['dtype']}: µs {times}"


def show(result: Result) -> bool:
    """Prints tables and notes; returns whether everything relied on is right."""
    measurements = result.content["measurements"]
    for table in report.tables(measurements):
        print(report.text(table))
    for note in result.content["notes"]:
        print(note)
    wrong = [
        f"WRONG: {part}: {row['name']}: {row.get('error') or row['shares']}"
        for part in CHECKS
        for row in measurements.get(part, [])
        if row["required"] and not row["passed"]
    ]
    print("\n".join([*wrong, f"result: {result.path}"]))
    return not wrong and not any(
        each.startswith(FAILED) for each in result.content["notes"]
    )


def main(arguments: Sequence[str]) -> int:
    """Returns the status: 0, 1 if something is wrong, 2 if refused, 130 if interrupted."""
    right: list[bool] = []
    status = exit_status(lambda: right.append(run(arguments)))
    return status or int(not all(right))
