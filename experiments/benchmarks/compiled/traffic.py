"""What an instruction reads from HBM and writes to it.

A kernel is assumed to read each operand once and to write each result once. This holds for
most of XLA's fusions; where an operand is read twice, as a custom call may do, the count is
a lower bound.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from experiments.benchmarks.compiled import hlo
from experiments.benchmarks.compiled.hlo import Array, Computation, Instruction

COPIES = ("copy-start", "slice-start")
SLICES = ("slice", "dynamic-slice", "gather")  # read no more than they return
UPDATE = "dynamic-update-slice"  # writes into its first operand, in place
SAME_ELEMENTS = ("bitcast", "convert", "copy")


class Moved(NamedTuple):
    """An array, and the number of its bytes that are moved."""

    array: Array
    bytes: int


def reads(within: Computation, each: Instruction, body: Computation | None) -> list[Moved]:
    """Returns what it reads from HBM; of an operand that is only sliced, the slices.

    Args:
      within: the computation that contains the instruction.
      each: the instruction.
      body: what it computes, if it is a fusion.
    """
    found: dict[tuple[str, int], Moved] = {}
    for place, name in enumerate(each.operands):
        elements = _elements_read(each, body, place)
        for number, array in enumerate(within.instructions[name].arrays):
            if array.in_hbm:
                # A fusion may receive the same memory twice, in two shapes.
                key = _memory(within, name), number
                before = found[key].bytes if key in found else 0
                more = min(elements, array.size) * array.itemsize
                found[key] = Moved(array, int(min(array.bytes, before + more)))
    return [each for each in found.values() if each.bytes]


def writes(within: Computation, each: Instruction, body: Computation | None) -> list[Moved]:
    """Returns what it writes to HBM; of an array updated in place, the update."""
    if each.opcode in COPIES:
        array = destination(each)
        return [Moved(array, array.bytes)] if array.in_hbm else []
    found = []
    sources = _results(within, each, body)
    for array, (computation, source) in zip(each.arrays, sources, strict=False):
        is_update = source.opcode == UPDATE
        size = _update_size(computation, source) if is_update else array.size
        if array.in_hbm:
            found.append(Moved(array, size * array.itemsize))
    return found


def destination(start: Instruction) -> Array:
    """Returns the array that a copy fills.

    The type of `copy-start` is (destination, source, context); the type of `slice-start`
    is ((source), destination, context).
    """
    if start.opcode == "copy-start":
        return start.arrays[0]
    behind = hlo.closing(start.type, 1) + 1
    return hlo.arrays(start.type[behind:])[0]


def _elements_read(each: Instruction, body: Computation | None, place: int) -> float:
    """Returns how many elements of an operand are read; infinity means all."""
    if each.opcode in COPIES:
        return destination(each).size
    if body is None:
        return _elements_of_use(each, place)
    for parameter in body.instructions.values():
        if parameter.opcode == "parameter" and int(parameter.arguments) == place:
            return _elements_used(body, parameter)
    return math.inf


def _elements_used(body: Computation, value: Instruction) -> float:
    """Returns how many elements of a value in a fusion are read, over all its uses."""
    if value is body.root:
        return math.inf
    total = 0.0
    for user in body.instructions.values():
        for place, name in enumerate(user.operands):
            if name != value.name:
                continue
            if user.opcode in SAME_ELEMENTS:
                total += _elements_used(body, user)
            else:
                total += _elements_of_use(user, place)
    return total


def _elements_of_use(user: Instruction, place: int) -> float:
    """Returns how many elements of its operand at `place` an operation reads."""
    if user.opcode in SLICES and place == 0:
        return user.arrays[0].size
    if user.opcode == UPDATE and place == 0:
        return 0
    return math.inf


def _results(
    within: Computation, each: Instruction, body: Computation | None
) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the operation behind each array of the result, and where it is."""
    if body is None:
        yield from ((within, each) for _ in each.arrays)
        return
    is_tuple = body.root.opcode == "tuple"
    for name in body.root.operands if is_tuple else [body.root.name]:
        yield body, body.instructions[_memory(body, name)]


def _update_size(within: Computation, update: Instruction) -> int:
    return within.instructions[update.operands[1]].arrays[0].size


def _memory(within: Computation, name: str) -> str:
    """Returns the name under which the memory was first filled."""
    each = within.instructions[name]
    while each.opcode in ("bitcast", "copy-done"):
        each = within.instructions[each.operands[0]]
    return each.name
