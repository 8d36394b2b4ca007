"""A running merge of many parts, in pairs of as many, as a binary counter carries."""

import functools
from collections.abc import Callable
from typing import Generic, TypeVar

import jax

Part = TypeVar("Part")


class Cascade(Generic[Part]):
    """Parts that come one after another, merged in pairs of as many of them.

    Merged one after another, what a single part adds to a large mean is lost in its
    rounding, and the errors add up with the number of parts; in pairs with its logarithm.
    As many partial results are held. It lives on the host: its length depends on how many
    parts have come.

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
        """Nothing yet, to be merged by `merge`."""
        self._merge = merge
        # Of how many parts, ever fewer; and what they merge to.
        self._pending: list[tuple[int, Part]] = []

    def add(self, part: Part) -> None:
        """Takes one more part, once it is computed."""
        number = 1
        while self._pending and self._pending[-1][0] == number:
            number, part = 2 * number, self._merge(self._pending.pop()[1], part)
        # Or batches would pile up; or be overwritten, if all are loaded into one buffer.
        self._pending.append((number, jax.block_until_ready(part)))

    def total(self, start: Part | None = None) -> Part | None:
        """All of them, after what came before; None of nothing."""
        parts = [part for _, part in self._pending]
        if start is not None:
            parts.insert(0, start)
        if not parts:
            return None
        # Those of the fewest parts first, so that like is merged with like here too.
        return functools.reduce(
            lambda later, part: self._merge(part, later), reversed(parts)
        )
