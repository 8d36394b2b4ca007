"""A running merge of many parts, in pairs of equal size, like carries in a counter."""

import functools
from collections.abc import Callable
from typing import Generic, TypeVar

import jax

Part = TypeVar("Part")


class Cascade(Generic[Part]):
    """Merges parts that arrive one after another, in pairs that cover equally many parts.

    Adding each part to a large mean in turn would lose digits to rounding, and the errors
    would grow with the number of parts; in pairs, they grow with its logarithm, as does the
    number of partial results held. The cascade lives on the host, because its length
    depends on the number of parts so far.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance",
    section 2.

    >>> cascade = Cascade(lambda one, another: f"({one}{another})")
    >>> for part in "abcdef":
    ...     cascade.add(part)
    >>> cascade.total()
    '(((ab)(cd))(ef))'
    >>> cascade.total("start")
    '(start(((ab)(cd))(ef)))'
    """

    def __init__(self, merge: Callable[[Part, Part], Part]) -> None:
        """Starts with no parts; `merge` merges two."""
        self._merge = merge
        # (number of parts, their merge), by decreasing number.
        self._pending: list[tuple[int, Part]] = []

    def add(self, part: Part) -> None:
        """Adds a part, and waits until it is computed."""
        number = 1
        while self._pending and self._pending[-1][0] == number:
            number, part = 2 * number, self._merge(self._pending.pop()[1], part)
        # Without blocking, batches would pile up, or be overwritten if they share a buffer.
        self._pending.append((number, jax.block_until_ready(part)))

    def total(self, start: Part | None = None) -> Part | None:
        """Returns the merge of `start` and all parts, or None if there are none."""
        parts = [part for _, part in self._pending]
        if start is not None:
            parts.insert(0, start)
        if not parts:
            return None
        # The smallest first, so that parts of similar size are merged here too.
        return functools.reduce(
            lambda later, part: self._merge(part, later), reversed(parts)
        )
