"""Reads the text of a compiled program (XLA's HLO) into computations and instructions."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

BYTES = {
    "pred": 1,
    **dict.fromkeys(("s4", "u4", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
}
ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
# XLA for a TPU writes an array's memory into its layout, such as S(1) for VMEM. Arrays
# without such a mark, or with S(0), are in HBM.
NOT_HBM = re.compile(r"S\([1-9]\d*\)")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$")
NAME = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = ")
OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
OPERAND = re.compile(r"%([\w.\-]+)")


class Array(NamedTuple):
    """An array in a type, and whether it is in HBM."""

    dtype: str
    shape: tuple[int, ...]
    in_hbm: bool = True

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The number of bytes per element."""
        return BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        """The number of bytes, without tile padding."""
        return self.size * self.itemsize

    def __str__(self) -> str:
        """Formats the array as in HLO."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    """A line of a computation: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    arguments: str
    attributes: str

    @property
    def arrays(self) -> list[Array]:
        """The arrays of its type."""
        return arrays(self.type)

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return OPERAND.findall(self.arguments)

    def attribute(self, pattern: str) -> str | None:
        """The first group of the pattern in the attributes, if it occurs."""
        found = re.search(pattern, self.attributes)
        return found and found[1]


class Computation(NamedTuple):
    """The instructions by name, in the order of the schedule."""

    instructions: Mapping[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The result; XLA writes it last."""
        return list(self.instructions.values())[-1]


class Program(NamedTuple):
    """All computations by name, and the one that runs."""

    computations: Mapping[str, Computation]
    entry: Computation


def arrays(text: str) -> list[Array]:
    """Returns the arrays in the text of a type, ignoring tokens and opaque types."""
    return [
        Array(dtype, tuple(map(int, filter(None, sizes.split(",")))), _in_hbm(layout))
        for dtype, sizes, layout in ARRAY.findall(text)
        if dtype in BYTES
    ]


def _in_hbm(layout: str) -> bool:
    return not NOT_HBM.search(layout)


def read(text: str) -> Program:
    """Parses the text of `compiled.as_text()`."""
    found: dict[str, dict[str, Instruction]] = {}
    entry = inside = None
    for line in text.splitlines():
        opened = COMPUTATION.match(line)
        if opened:
            inside = opened[2]
            found[inside] = {}
            entry = inside if opened[1] else entry
        elif line.startswith("}"):
            inside = None
        elif inside is not None:
            instruction = read_instruction(line)
            if instruction:
                found[inside][instruction.name] = instruction
    if entry is None:
        raise ValueError("this is not HLO text: it has no line that begins with ENTRY.")
    computations = {name: Computation(each) for name, each in found.items()}
    return Program(computations, computations[entry])


def read_instruction(line: str) -> Instruction | None:
    """Parses the instruction on a line; returns None if there is none."""
    name = NAME.match(line)
    if not name:
        return None
    result, rest = _first_type(line[name.end() :])
    opcode = OPCODE.match(rest)
    if not opcode:
        return None
    end = closing(rest, opcode.end() - 1)
    arguments, attributes = rest[opcode.end() : end], rest[end + 1 :]
    return Instruction(name[1], result, opcode[1], arguments, attributes)


def _first_type(text: str) -> tuple[str, str]:
    """Splits the text into the type it begins with and the rest."""
    if text.startswith("("):
        end = closing(text, 0) + 1
    else:
        found = ARRAY.match(text)
        end = found.end() if found else text.find(" ")
    return text[:end], text[end:]


def closing(text: str, start: int) -> int:
    """Returns the position at which the parenthesis opened at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unclosed parenthesis in this line of HLO: {text[:80]}")
