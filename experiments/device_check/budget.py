"""The seconds that a run may take, and the lines that say where it is."""

import sys
import time
from collections.abc import Callable


class Budget:
    """Seconds that run out.

    Args:
      seconds: from now on.
      clock: what tells the time.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._seconds = seconds

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._seconds - self.spent)

    def allows(self, seconds: float) -> bool:
        """Whether something that may take so long can still be started."""
        return self.left > seconds

    def tell(self, text: str) -> None:
        """Prints a line of progress on stderr."""
        print(f"[{self.spent:5.1f} s] {text}", file=sys.stderr, flush=True)
