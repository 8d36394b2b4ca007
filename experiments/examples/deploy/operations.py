"""What a compiled program consists of, counted in XLA's text of it."""

import re
from collections import Counter
from typing import NamedTuple

# They name values or hold other operations, and compute nothing.
NO_WORK = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}
HOLDERS = {"fusion", "call", "while", "conditional"}

# `%name = f32[2]{0} opcode(`, or `%name = (f32[2]{0}, s32[]) opcode(`.
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (?:\(.*?\)|\S+) ([\w-]+)\(", re.MULTILINE)


class Operations(NamedTuple):
    """How many operations an optimised program has.

    Attributes:
      total: all that compute, those inside of fusions among them.
      kernels: what the program calls one after the other, a fusion being one.
      rsqrt: those of `total` that take a reciprocal root, or a root.
    """

    total: int
    kernels: int
    rsqrt: int


def operations(text: str) -> Operations:
    """Counts in `jax.jit(f).lower(x).compile().as_text()`."""
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
