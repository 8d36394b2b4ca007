"""The tables, computed from the measurements alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.benchmarks.tables import ABSENT, Table

MACHINES = {"gpu": "H100", "tpu": "v5e", "cpu": "host CPU"}
LIBRARIES = ("jaxnorm", "flax")
SPLIT = {
    "batch_norm": "batch",
    "layer_norm": "features",
    "rms_norm": "features",
    "group_norm": "positions",
    "instance_norm": "positions",
}
EXCHANGING = ("fwd", "both")
Figures = Mapping[str, Any]  # for one library: by program, then by name; and `kept`


def passes(figures: Figures, program: str) -> float:
    """Returns the bytes read and written, in sizes of x."""
    return float(figures[program]["read"]) + float(figures[program]["written"])


# A column: its heading, and the cell of one library.
COLUMNS: dict[str, Callable[[Figures], str]] = {
    "fwd": lambda figures: f"{passes(figures, 'fwd'):.1f}",
    "both": lambda figures: f"{passes(figures, 'both'):.1f}",
    "bwd": lambda figures: f"{passes(figures, 'bwd'):.1f}",
    "kernels": lambda figures: f"{float(figures['both']['kernels']):.0f}",
    "temp": lambda figures: f"{float(figures['both']['temporaries']):.1f}",
    "kept": lambda figures: f"{float(figures['kept']):.1f}",
}


def tables(measurements: Mapping[str, Any]) -> Iterator[Table]:
    """Yields the passes for each platform, then the collectives for all."""
    for platform, ops in measurements.get("passes", {}).items():
        yield _passes(MACHINES[platform], ops)
    if measurements.get("collectives"):
        yield _collectives(measurements["collectives"])


def _passes(machine: str, ops: Mapping[str, Any]) -> Table:
    title = (
        f"{machine}, jaxnorm/flax: passes over x; kernels and temporaries (in sizes of "
        "x) of both; kept for the backward pass, in sizes of x"
    )
    rows = [
        (op, shape, dtype, *(_pair(libraries, cell) for cell in COLUMNS.values()))
        for op, shapes in ops.items()
        for shape, dtypes in shapes.items()
        for dtype, libraries in dtypes.items()
    ]
    return Table(title, ("op", "x", "dtype", *COLUMNS), rows, labels=3)


def _collectives(platforms: Mapping[str, Any]) -> Table:
    title = (
        "Collectives over 8 devices, jaxnorm/flax; in brackets the numbers that each "
        "device sends"
    )
    rows = [
        (
            op,
            SPLIT[op],
            MACHINES[platform],
            *(_pair(libraries, _exchanged(program)) for program in EXCHANGING),
        )
        for op in dict.fromkeys(op for ops in platforms.values() for op in ops)
        for platform, ops in platforms.items()
        for libraries in [ops.get(op, {})]
    ]
    return Table(title, ("op", "split", "devices", *EXCHANGING), rows, labels=3)


def _exchanged(program: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        count, numbers = (
            int(figures[program][name]) for name in ("collectives", "numbers")
        )
        return f"{count} ({numbers:,})"

    return cell


def _pair(libraries: Mapping[str, Figures], cell: Callable[[Figures], str]) -> str:
    """Returns the cells of both libraries; a dash for what was not measured."""
    return "/".join(_one(libraries.get(name), cell) for name in LIBRARIES)


def _one(figures: Figures | None, cell: Callable[[Figures], str]) -> str:
    try:
        return ABSENT if figures is None else cell(figures)
    except KeyError:  # a program that was not chosen
        return ABSENT
