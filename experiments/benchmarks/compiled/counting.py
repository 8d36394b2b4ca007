"""Counts the kernels of a compiled program, the bytes they move, and the collectives."""

from collections.abc import Iterable
from typing import NamedTuple

from experiments.benchmarks.compiled import traffic
from experiments.benchmarks.compiled.hlo import Array, Computation, Instruction, Program
from experiments.benchmarks.compiled.traffic import Moved

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# These only rename memory, or wait for something that was counted where it started.
FREE = (
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
)
FREE_TARGETS = ("AllocateBuffer", "ConcatBitcast", "Sharding")
TARGET = r'custom_call_target="([^"]*)"'


class Kernel(NamedTuple):
    """Something that a program runs.

    Attributes:
      name: its name in HLO.
      kind: the opcode, with the kind of a fusion or the target of a custom call.
      reads: what it reads from HBM in one run.
      writes: what it writes to HBM in one run.
      sent: the arrays that each device passes to a collective; their traffic through HBM
        is not counted.
      times: the number of runs.
    """

    name: str
    kind: str
    reads: list[Moved]
    writes: list[Moved]
    sent: list[Array]
    times: int

    @property
    def read(self) -> int:
        """Bytes read, over all runs."""
        return self.times * sum(each.bytes for each in self.reads)

    @property
    def written(self) -> int:
        """Bytes written, over all runs."""
        return self.times * sum(each.bytes for each in self.writes)

    @property
    def is_copy(self) -> bool:
        """Whether a TPU's DMA does it, beside the kernels."""
        return self.kind in traffic.COPIES


def kernels(
    program: Program, within: Computation | None = None, times: int = 1
) -> list[Kernel]:
    """Returns everything that runs, in order, through loops and branches.

    Args:
      program: a program from `hlo.read`.
      within: the computation to begin with; defaults to the entry.
      times: the number of times that the computation runs.
    """
    within = within or program.entry
    found = []
    for each in within.instructions.values():
        called = _called(program, each)
        if called:
            repeats = times * trip_count(each)
            branches = [kernels(program, branch, repeats) for branch in called]
            found += max(branches, key=moved)  # only `conditional` has several
        elif not is_free(each):
            found.append(_kernel(program, within, each, times))
    return found


def moved(found: Iterable[Kernel]) -> int:
    """Returns the bytes read and written."""
    return sum(each.read + each.written for each in found)


def is_free(each: Instruction) -> bool:
    """Returns whether nothing runs for the instruction."""
    return (
        each.opcode in FREE
        or each.opcode.endswith(("-done", "-update"))
        or each.attribute(TARGET) in FREE_TARGETS
    )


def trip_count(each: Instruction) -> int:
    """Returns a loop's number of runs; 1, a lower bound, if XLA does not know it."""
    return int(each.attribute(r'"known_trip_count":\{"n":"(\d+)"') or 1)


# The attributes that name the computations that a control-flow instruction runs.
CALLS = {
    "call": r"to_apply=(\S+)",
    "async-start": r"calls=(\S+)",
    "while": r"body=(\S+)",
    "conditional": r"branch_computations=\{([^}]*)\}",
}
TRUE, FALSE = r"true_computation=(\S+)", r"false_computation=(\S+)"


def _called(program: Program, each: Instruction) -> list[Computation]:
    """Returns what the instruction runs or may run; empty if it is itself a kernel."""
    patterns = [CALLS[each.opcode]] if each.opcode in CALLS else []
    if each.opcode == "conditional":
        patterns += [TRUE, FALSE]
    found = filter(None, map(each.attribute, patterns))
    names = [name.strip(" %") for names in found for name in names.split(",")]
    return [program.computations[name] for name in names if name]


def _kernel(program: Program, within: Computation, each: Instruction, times: int) -> Kernel:
    detail = each.attribute(TARGET) or each.attribute(r"kind=(\w+)")
    kind = f"{each.opcode} {detail}" if detail else each.opcode
    if each.opcode.removesuffix("-start") in COLLECTIVES:
        sent = [
            array for name in each.operands for array in within.instructions[name].arrays
        ]
        return Kernel(each.name, kind, [], [], sent, times)
    body = program.computations.get((each.attribute(r"calls=([^,\s]+)") or "").strip("%"))
    reads = traffic.reads(within, each, body)
    return Kernel(each.name, kind, reads, traffic.writes(within, each, body), [], times)
