"""Times calls that take turns, so that other load on the machine affects them all."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

WARM_UP = 2


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, np.ndarray]:
    """Returns the seconds of each call in each round; every round has its own order.

    Args:
      calls: the calls, by name; each waits for its result.
      rounds: the number of timed calls of each, after some untimed ones.
    """
    names, orders = list(calls), np.random.default_rng(0)
    seconds = {name: np.empty(rounds) for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(-WARM_UP, rounds):
            for name in orders.permutation(names):
                start = time.perf_counter()
                result = calls[name]()
                taken = time.perf_counter() - start
                del result  # freed outside the measured time
                if number >= 0:
                    seconds[name][number] = taken
    finally:
        if collecting:
            gc.enable()
    return seconds
