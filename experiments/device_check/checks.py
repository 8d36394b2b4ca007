"""Checks: programs whose results are compared with float64, and their errors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.device_check.budget import Budget
from experiments.device_check.compiling import LATE, Compiled, Source, compile_all, reason

ULP = 2.0**-23  # of float32


class Check(NamedTuple):
    """A program and how to judge it.

    Attributes:
      name: unique within its section.
      source: the program.
      judge: `judge(compiled)` returns the largest error of each quantity as a share of the
        allowed error; 1 or less passes.
      required: whether jaxnorm relies on it on this platform.
    """

    name: str
    source: Source
    judge: Callable[[Compiled], dict[str, float]]
    required: bool = True


def share(got: Any, want: Any, allowed: Any) -> float:
    """Returns the largest error over the allowed one; infinite for non-finite values."""
    error = np.abs(wide(got) - wide(want))
    allowed = np.broadcast_to(np.asarray(allowed, np.float64), error.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(error == 0, 0.0, error / allowed)
    return float(np.max(np.where(np.isnan(shares), np.inf, shares), initial=0.0))


def wide(array: Any) -> np.ndarray:
    """Converts an array of any floating dtype to float64."""
    return np.asarray(array).astype(np.float64)


def worst(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Returns the largest share of each quantity."""
    most: dict[str, float] = {}
    for each in found:
        for name, value in each.items():
            most[name] = max(value, most.get(name, 0.0))
    return most


def run(checks: Sequence[Check], budget: Budget) -> Iterator[dict[str, Any] | str]:
    """Yields a row for each check: its name, shares, whether it passed, and any error.

    For checks that did not finish in time, a string that says so is yielded instead.
    """
    by_name = {each.name: each for each in checks}
    sources = {name: each.source for name, each in by_name.items()}
    ready, missing = compile_all(sources, budget.left)
    for name, each in by_name.items():
        if missing.get(name) == LATE or not budget.left:
            yield f"{name}: {LATE}"
            continue
        row: dict[str, Any] = {"name": name, "required": each.required}
        try:
            shares = each.judge(ready[name]) if name in ready else {}
        except Exception as error:  # devices refuse in many ways
            shares, missing[name] = {}, reason(error)
        if name in missing:
            row["error"] = missing[name]
        # JSON has no infinity.
        row["shares"] = {key: min(value, 1e300) for key, value in shares.items()}
        row["passed"] = name not in missing and max(shares.values(), default=0.0) <= 1
        yield row
