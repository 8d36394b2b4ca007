"""The tables of a result: as text on a terminal, or in markdown for a page.

python -m experiments.device_check.report docs/numerics/devices/CARD.json
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.tables import ABSENT, Table, markdown, three_digits, two_digits
from experiments.harness import argument_types
from experiments.harness.status import Refused, exit_status

NAME = "device_check"  # the name of the experiment in a result
PARTS = {
    "table": "the table of cases",
    "stable": "long sums, means to 10⁶ σ",
    "constants": "constants, ε = 0",
    "formulas": "each formula on its own",
    "kernels": "kernels of the backward pass",
}
CACHE = 64e6  # bytes; less traffic than this per call may stay in a cache
Rows = Sequence[Mapping[str, Any]]


def tables(measurements: Mapping[str, Rows]) -> Iterator[Table]:
    """Yields the table of every part that was measured."""
    checked = {part: measurements[part] for part in PARTS if part in measurements}
    if checked:
        yield correctness(checked)
    if "formulas" in measurements:
        yield formulas(measurements["formulas"])
    if "times" in measurements:
        yield times(measurements["times"])
    if "networks" in measurements:
        yield networks(measurements["networks"])


def correctness(checked: Mapping[str, Rows]) -> Table:
    """Counts the passed checks, and shows the worst as a share of the allowed error."""
    rows = []
    for part, found in checked.items():
        relied_on = [row for row in found if row["required"]]
        passed = sum(row["passed"] for row in relied_on)
        name, value = _worst(relied_on)
        rows.append((PARTS[part], f"{passed} of {len(relied_on)}", two_digits(value), name))
    title = "correctness; worst: the largest error as a share of the allowed one, and where"
    return Table(title, ("checks", "passed", "worst", "where"), rows)


def _worst(rows: Rows) -> tuple[str, float]:
    shares = [
        (value, f"{row['name']}: {quantity}")
        for row in rows
        for quantity, value in row["shares"].items()
    ]
    value, where = max(shares, default=(0.0, ABSENT))
    return where, value


def formulas(found: Rows) -> Table:
    """Shows the worst of each formula, over arrangements and weights."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in found:
        by_name.setdefault(row["name"].partition(":")[0], []).append(row)
    quantities = list(dict.fromkeys(each for row in found for each in row["shares"]))
    rows = []
    for name, of_it in by_name.items():
        used = sum(row["required"] for row in of_it)
        worst = (
            two_digits(max((row["shares"].get(each, 0.0) for row in of_it), default=0.0))
            for each in quantities
        )
        rows.append((name, f"{used} of {len(of_it)}", *worst))
    title = "formulas; the largest error as a share of the allowed one; used: here, of all"
    return Table(title, ("formula", "used", *quantities), rows)


def times(found: Rows) -> Table:
    """Shows times, and the number of passes over x they are worth at the copy's speed."""
    title = (
        "times in µs, medians; passes: over x, at the speed of the copy; share: of its "
        "bandwidth, by the least passes"
    )
    headings = ("norm", "x", "dtype", "mode", "copy", "jaxnorm", "flax", "÷ flax")
    headings += ("least passes", "passes", "flax's", "share", "flax's share", "")
    rows = [_times(row) for row in found]
    return Table(title, headings, rows, labels=4)


def _times(row: Mapping[str, Any]) -> tuple[str, ...]:
    copy, ours, flax = (row["microseconds"][each][0] for each in ("copy", *LIBRARIES))
    passes = [2 * each / copy for each in (ours, flax)]
    least = row["least_passes"]
    values = (copy, ours, flax, ours / flax)
    return (
        *(row[each] for each in ("op", "shape", "dtype", "mode")),
        *map(three_digits, values),
        str(least),
        *map(three_digits, passes),
        *(f"{100 * least / each:.0f} %" for each in passes),
        _reservation(row),
    )


LIBRARIES = ("jaxnorm", "flax")


def _reservation(row: Mapping[str, Any]) -> str:
    """Marks what a reader must know about the times of a row."""
    found = []
    arrays = 2 if row["mode"] == "forward" else 4
    if row["bytes"] * arrays * row["side_by_side"] < CACHE:
        found.append("cached?")
    calling = row["microseconds_to_call"]
    if any(calling[name] > 0.8 * row["microseconds"][name][0] for name in calling):
        found.append("calls as slow?")
    return ", ".join(found)


def networks(found: Rows) -> Table:
    """Shows times and temporaries of a training step."""
    rows = []
    for row in found:
        ours, flax = (row["microseconds"][each][0] / 1e3 for each in LIBRARIES)
        memory = [row["temporary_bytes"][each] for each in LIBRARIES]
        megabytes = [ABSENT if each is None else f"{each / 1e6:.4g}" for each in memory]
        named = (row[each] for each in ("network", "shape", "dtype"))
        rows.append((*named, *map(three_digits, (ours, flax, ours / flax)), *megabytes))
    headings = ("network", "batch", "dtype", "jaxnorm, ms", "flax, ms", "÷ flax")
    headings += ("temporaries, MB", "flax's, MB")
    return Table("a training step, medians", headings, rows, labels=3)


def text(table: Table) -> str:
    """Formats a table in columns below its title."""
    cells = [tuple(table.headings), *map(tuple, table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = (
            cell.ljust(width) if place < table.labels else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join([table.title, "", *lines, ""])


def read(path: Path) -> dict[str, Any]:
    """Reads a result; refuses one of another kind."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: is not a result ({error}).") from error
    settings = result.get("settings") if isinstance(result, dict) else None
    is_of = settings.get("experiment") if isinstance(settings, dict) else None
    if is_of != NAME:
        raise Refused(f"{path}: is a result of {is_of}, not of {NAME}.")
    return result


def page(result: Mapping[str, Any]) -> str:
    """Returns the device and versions, the tables in markdown, and the notes."""
    versions = ", ".join(f"{name} {each}" for name, each in result["versions"].items())
    parts = [f"{result['device']}; {versions}.\n"]
    for table in tables(result["measurements"]):
        parts.append(f"**{table.title}**\n\n{markdown(table)}\n")
    return "\n".join([*parts, *(f"{note}\n" for note in result["notes"])])


def run(arguments: Sequence[str]) -> None:
    """Prints the page of a result."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.device_check.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("result", type=argument_types.path, metavar="RESULT.json")
    path = made.parse_args(arguments).result
    result = read(path)
    try:
        text = page(result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            f"{path}: is not a complete result ({type(error).__name__}: {error}); run "
            f"python -m experiments.{NAME} again."
        ) from error
    print(text)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, or 2 if refused."""
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
