"""Prints the tables of a result in markdown for docs/numerics.md; needs no library.

python -m experiments.benchmarks.page accuracy docs/numerics/accuracy.json
python -m experiments.benchmarks.page benchmarks docs/numerics/benchmarks.json
python -m experiments.benchmarks.page compiled docs/numerics/compiled.json

With `--write docs/numerics.md` they replace the text there between `<!-- compiled -->` and
`<!-- /compiled -->`, or the markers of another kind.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.accuracy import tables as accuracy_tables
from experiments.benchmarks.comparison import (
    BESIDE,
    OURS,
    PEERS,
    RATIOS,
    Figures,
    geometric_mean,
    labels,
    ratio,
)
from experiments.benchmarks.compiled import tables as compiled_tables
from experiments.benchmarks.overview import overview
from experiments.benchmarks.tables import ABSENT, Table, markdown, three_digits
from experiments.harness import argument_types
from experiments.harness.console import Refused, exit_status

NAMES = (OURS, *PEERS)
HEADINGS = (*NAMES, *(f"÷ {name}" for name in RATIOS))
Shapes = Mapping[str, Mapping[str, Figures]]  # by shape, then by mode


def benchmark_tables(measurements: Mapping[str, Any]) -> Iterator[Table]:
    """Yields all ops; then for each the times by dtype, and the figures beside them."""
    yield from overview(measurements)
    for op, dtypes in measurements.items():
        for dtype, shapes in dtypes.items():
            yield times(shapes, f"{op}, {dtype}, ms; ÷: our time over that of the other")
        rows = [
            (dtype, *row) for dtype, shapes in dtypes.items() for row in beside_time(shapes)
        ]
        title = f"{op}, the most over the shapes (of shares the geometric mean)"
        yield Table(title, ("x", "figure", *NAMES), rows, labels=2)


def times(shapes: Shapes, title: str) -> Table:
    """Shows milliseconds and ratios by shape and mode, then geometric means of ratios."""
    rows, called = [], labels(_modes(shapes))
    for shape, modes in shapes.items():
        for mode, figures in modes.items():
            milliseconds = (
                three_digits(figures.get(name, {}).get("milliseconds", float("nan")))
                for name in NAMES
            )
            rows.append((shape, called[mode], *milliseconds, *_ratios([figures])))
    rows += [
        ("geometric mean", name, *[""] * len(NAMES), *_ratios(_of(shapes, mode)))
        for mode, name in called.items()
    ]
    return Table(title, ("x", "mode", *HEADINGS), rows, labels=2)


def _ratios(cases: Sequence[Figures]) -> list[str]:
    return [
        three_digits(geometric_mean(ratio(figures, others) for figures in cases))
        for others in RATIOS.values()
    ]


def beside_time(shapes: Shapes) -> Iterator[tuple[str, ...]]:
    """Yields maxima over the shapes, and mean shares of the copy's bandwidth."""
    for asked in BESIDE:
        found = asked.most(_of(shapes, asked.mode))
        if found:
            yield (asked.label, *(found.get(name, ABSENT) for name in NAMES))
    for mode, called in labels(_modes(shapes)).items():
        shares = [
            geometric_mean(
                float(figures.get(name, {}).get("copy_share", float("nan")))
                for figures in _of(shapes, mode)
            )
            for name in NAMES
        ]
        if any(share == share for share in shares):  # NaN is not itself
            label = f"share of the copy's bandwidth, {called}"
            yield (label, *map(three_digits, shares))


def _modes(shapes: Shapes) -> list[str]:
    return list(dict.fromkeys(mode for modes in shapes.values() for mode in modes))


def _of(shapes: Shapes, mode: str) -> list[Figures]:
    return [modes[mode] for modes in shapes.values() if mode in modes]


TABLES = {
    "accuracy": accuracy_tables.tables,
    "benchmarks": benchmark_tables,
    "compiled": compiled_tables.tables,
}


def read(kind: str, path: Path) -> dict[str, Any]:
    """Reads the result of a run; refuses one of another kind."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: is not a result ({error}).") from error
    settings = result.get("settings") if isinstance(result, dict) else None
    is_of = settings.get("experiment") if isinstance(settings, dict) else None
    if is_of != kind:
        raise Refused(f"{path}: is a result of {is_of}, not of {kind}.")
    return result


def text(kind: str, result: Path) -> str:
    """Returns the tables with their titles, and the notes."""
    content = read(kind, result)
    try:
        tables = TABLES[kind](content["measurements"])
        parts = [f"**{table.title}**\n\n{markdown(table)}\n" for table in tables]
        return "\n".join([*parts, *(f"{note}\n" for note in content.get("notes", []))])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            f"{result}: is not a complete result ({type(error).__name__}: {error}); run "
            f"the {kind} again."
        ) from error


def write(kind: str, result: Path, page: Path) -> None:
    """Writes the tables between the markers of their kind on a page."""
    begin, end = f"<!-- {kind} -->", f"<!-- /{kind} -->"
    try:
        before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    except OSError as error:
        raise Refused(f"{page}: cannot be read ({error.strerror}).") from error
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise Refused(f"{page}: has no {begin} … {end} to write the tables between.")
    new = f"{before}{begin}\n\n{text(kind, result)}\n{end}{after}"
    page.write_text(new, encoding="utf-8")


def run(arguments: Sequence[str]) -> None:
    """Prints the tables, or writes them."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("kind", choices=tuple(TABLES))
    made.add_argument("result", type=argument_types.path, metavar="RESULT.json")
    made.add_argument(
        "--write",
        type=argument_types.path,
        metavar="PAGE.md",
        help="write between the markers there",
    )
    options = made.parse_args(arguments)
    if options.write:
        write(options.kind, options.result, options.write)
    else:
        print(text(options.kind, options.result))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, or 2 if refused."""
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
