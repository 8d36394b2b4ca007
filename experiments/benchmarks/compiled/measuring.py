"""Compiles programs and counts what they do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from experiments.benchmarks.compiled import counting, hlo, programs, targets
from experiments.benchmarks.compiled.counting import Kernel
from experiments.benchmarks.compiled.tables import EXCHANGING
from experiments.benchmarks.layers import Shape

DIGITS = 4  # after the point, so that a result differs only where a reader would see it
Place = Callable[[jax.ShapeDtypeStruct], Sharding]


class Case(NamedTuple):
    """What is measured together.

    Attributes:
      platform: a key of `targets.DEVICES`.
      op: a key of `programs.OPS`.
      shape: the shape of x.
      dtype: the dtype of x and of the module.
      library: the library that provides the norms.
    """

    platform: str
    op: str
    shape: Shape
    dtype: str
    library: str

    @property
    def size(self) -> str:
        """The shape as written on the command line."""
        return "x".join(map(str, self.shape))

    @property
    def path(self) -> tuple[str, ...]:
        """The position of its figures in a result."""
        return self.platform, self.op, self.size, self.dtype, self.library

    @property
    def name(self) -> str:
        """All fields, for a line of output."""
        return " ".join(self.path)


def build(case: Case) -> programs.Built:
    """Returns the programs of a case."""
    return programs.build(case.op, case.library, case.shape, case.dtype)


def compile_for(function: Callable, arguments: tuple, place: Place) -> Any:
    """Compiles the function, with arguments and results placed by `place`."""
    arguments = jax.tree.map(
        lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=place(each)),
        arguments,
    )
    results = jax.tree.map(place, jax.eval_shape(function, *arguments))
    return jax.jit(function, out_shardings=results).lower(*arguments).compile()


def kernels(program: Any) -> list[Kernel]:
    """Returns the kernels that a compiled program runs."""
    return counting.kernels(hlo.read(program.as_text()))


def alone(platform: str) -> Place:
    """Places everything on one device."""
    sharding = SingleDeviceSharding(targets.devices(platform, 1)[0])
    return lambda each: sharding


def split(platform: str, shape: Shape, axis: int) -> Place:
    """Splits an axis of x over several devices; parameters with it, if it has features."""
    mesh = Mesh(np.array(targets.devices(platform, targets.SEVERAL)), ("devices",))
    axis %= len(shape)
    spec: list[str | None] = [None] * len(shape)
    spec[axis] = "devices"

    def place(each: jax.ShapeDtypeStruct) -> Sharding:
        if each.shape == shape:
            return NamedSharding(mesh, PartitionSpec(*spec))
        is_split = each.shape == shape[-1:] and axis == len(shape) - 1
        return NamedSharding(mesh, PartitionSpec("devices" if is_split else None))

    return place


def compiled(case: Case, place: Place, chosen: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields each program of a case with its name."""
    built = build(case)
    for name in chosen:
        yield name, compile_for(*built.programs[name], place)


def figures(case: Case, chosen: Sequence[str] = programs.PROGRAMS) -> dict[str, Any]:
    """Returns each program's figures on one device, and the residuals, in sizes of x."""
    built = build(case)
    found: dict[str, Any] = {"kept": round(built.kept / built.unit, DIGITS)}
    for name, program in compiled(case, alone(case.platform), chosen):
        ran = kernels(program)
        sizes = {
            "read": sum(each.read for each in ran),
            "written": sum(each.written for each in ran),
            "temporaries": program.memory_analysis().temp_size_in_bytes,
        }
        found[name] = {
            "kernels": sum(each.times for each in ran if not each.is_copy),
            **{name: round(each / built.unit, DIGITS) for name, each in sizes.items()},
        }
    return found


def collectives(case: Case) -> dict[str, Any]:
    """Counts the collectives of each program over several devices, and what they send.

    The count of numbers sent is the total that one device passes to all collectives.
    """
    axis = programs.OPS[case.op].sharded
    if axis is None:
        raise ValueError(f"{case.op} is not split over devices.")
    found = {}
    place = split(case.platform, case.shape, axis)
    for name, program in compiled(case, place, EXCHANGING):
        ran = kernels(program)
        found[name] = {
            "collectives": sum(each.times for each in ran if each.sent),
            "numbers": sum(each.times * array.size for each in ran for array in each.sent),
        }
    return found


def lines(case: Case, chosen: Sequence[str]) -> Iterator[str]:
    """Yields a heading for each program of a case, and a line for each kernel."""
    unit = build(case).unit
    for name, program in compiled(case, alone(case.platform), chosen):
        yield f"{case.name} {name}"
        yield f"  {'in sizes of x':<28} {'read':>6} {'write':>6}"
        for each in kernels(program):
            read, written = (f"{size / unit:.2f}" for size in (each.read, each.written))
            ins, outs = (
                ", ".join(str(one.array) for one in moved if one.bytes > unit / 16)
                for moved in (each.reads, each.writes)
            )
            times = f" × {each.times}" if each.times > 1 else ""
            kind = f"{each.kind}{times}"
            yield f"  {kind:<28} {read:>6} {written:>6}  {each.name}: {ins} → {outs}"
