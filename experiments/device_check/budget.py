"""The time budget of a run, and its lines of progress."""

import sys
import time
from collections.abc import Callable


class Budget:
    """A number of seconds that runs out.

    Args:
      seconds: the budget, counted from now.
      clock: returns the current time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._seconds = seconds

    @property
    def spent(self) -> float:
        """The seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """The seconds left, at least 0."""
        return max(0.0, self._seconds - self.spent)

    def allows(self, seconds: float) -> bool:
        """Returns whether something that may take this long can still be started."""
        return self.left > seconds

    def tell(self, text: str) -> None:
        """Prints a line of progress on stderr."""
        print(f"[{self.spent:5.1f} s] {text}", file=sys.stderr, flush=True)
