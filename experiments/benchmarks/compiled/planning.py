"""What the options ask to compile, and where its figures go in a result."""

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import getitem
from typing import Any, NamedTuple

from experiments.benchmarks import command as benchmarks
from experiments.benchmarks import ops
from experiments.benchmarks.compiled import measuring, targets
from experiments.benchmarks.compiled.measuring import Case
from experiments.benchmarks.compiled.programs import NORMS, OPS, PROGRAMS
from experiments.benchmarks.layers import Shape
from experiments.harness.console import Refused

DEVICES = ALONE, TOGETHER = "1", str(targets.SEVERAL)


class Part(NamedTuple):
    """A part of a run.

    Attributes:
      path: the position of its figures in the measurements.
      compute: returns the figures.
    """

    path: tuple[str, ...]
    compute: Callable[[], dict[str, Any]]


def shapes_of(op: str, given: Sequence[str] | None) -> list[Shape]:
    """Returns the given shapes, or the op's own; refuses shapes the op cannot take."""
    if not given:
        return list(OPS[op].shapes)
    found = []
    for text in given:
        shape = benchmarks.shape(text, [op] if op in ops.OPS else [])
        if len(shape) < OPS[op].axes:
            raise Refused(
                f"--shapes {text}: {op} needs {OPS[op].axes} axes, as in "
                f"{'x'.join(map(str, OPS[op].shapes[0]))}; choose others with --ops."
            )
        found.append(shape)
    return found


def cases(options: argparse.Namespace, platforms: Sequence[str]) -> list[Case]:
    """Returns the cases compiled for one device."""
    shapes = {op: shapes_of(op, options.shapes) for op in options.ops}
    return [
        Case(platform, op, shape, dtype, library)
        for platform in platforms
        for op in options.ops
        for shape in shapes[op]
        for dtype in options.dtypes
        for library in options.libs
    ]


def exchanges(options: argparse.Namespace, platforms: Sequence[str]) -> list[Case]:
    """Returns the cases compiled for several devices, always including the host's."""
    return [
        Case(platform, op, OPS[op].shapes[0], "float32", library)
        for platform in (*platforms, "cpu")
        for op in options.ops
        if op in NORMS
        for library in options.libs
    ]


def parts(options: argparse.Namespace, platforms: Sequence[str]) -> dict[str, Part]:
    """Returns all parts, by the name in their line; refuses an empty selection."""
    found = {}
    if ALONE in options.devices:
        programs = [name for name in PROGRAMS if name in options.programs]
        for case in cases(options, platforms):
            compute = functools.partial(measuring.figures, case, programs)
            found[case.name] = Part(("passes", *case.path), compute)
    if TOGETHER in options.devices:
        for case in exchanges(options, platforms):
            path = ("collectives", case.platform, case.op, case.library)
            compute = functools.partial(measuring.collectives, case)
            found[f"{case.name}, {TOGETHER} devices"] = Part(path, compute)
    if not found:
        raise Refused(
            f"--devices {TOGETHER}: no op of {', '.join(options.ops)} is split over them; "
            "choose others with --ops."
        )
    return found


def nested(found: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Returns a tree with the value at the end of each path."""
    tree: dict[str, Any] = {}
    for (*path, last), value in found:
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return tree


def arranged(measurements: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[str, Any]:
    """Puts the measurements into the order of the parts; reading a run sorts them."""
    paths = [part.path for part in parts.values()]
    return nested((path, functools.reduce(getitem, path, measurements)) for path in paths)
