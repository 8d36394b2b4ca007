"""Counts the operations of a compiled program in XLA's text."""

import re
from collections import Counter
from typing import NamedTuple

# These name values or hold other operations, and compute nothing themselves.
NO_WORK = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}
HOLDERS = {"fusion", "call", "while", "conditional"}

# `%name = f32[2]{0} opcode(`, or `%name = (f32[2]{0}, s32[]) opcode(`.
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (?:\(.*?\)|\S+) ([\w-]+)\(", re.MULTILINE)


class Operations(NamedTuple):
    """The numbers of operations in an optimised program.

    Attributes:
      total: all operations that compute, including those inside fusions.
      kernels: the calls that the program makes one after another, a fusion being one.
      rsqrt: those in `total` that take a root or a reciprocal root.
    """

    total: int
    kernels: int
    rsqrt: int


def operations(text: str) -> Operations:
    """Counts the operations in `jax.jit(f).lower(x).compile().as_text()`."""
    everywhere = Counter(INSTRUCTION.findall(text))
    entry = Counter(INSTRUCTION.findall(text.partition("\nENTRY ")[2]))
    work = {
        name: count for name, count in everywhere.items() if name not in NO_WORK | HOLDERS
    }
    return Operations(
        total=sum(work.values()),
        kernels=sum(count for name, count in entry.items() if name not in NO_WORK),
        rsqrt=work.get("rsqrt", 0) + work.get("sqrt", 0),
    )
