"""Timing calls that take turns, so that what else the machine does meets them all."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

WARM_UP = 2


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, np.ndarray]:
    """The seconds of each call in each round; every round has an order of its own.

    Args:
      calls: by name; each waits for its result.
      rounds: how often each is called, after some calls that are not timed.
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
                del result  # freed outside of the time taken
                if number >= 0:
                    seconds[name][number] = taken
    finally:
        if collecting:
            gc.enable()
    return seconds
