"""Times the norms beside flax and a copy: medians of rounds in which they take turns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import interleaved
from experiments.device_check.budget import Budget
from experiments.device_check.compiling import LATE, Source, compile_all, reason
from experiments.device_check.programs import Repeated, noise, normal, side_by_side, works
from experiments.device_check.shapes import MODES, Timed

TOGETHER = 12  # comparisons compiled together
SECONDS_OF_ONE = 2.0  # upper limit for a comparison and its share of the compilation


class Effort(NamedTuple):
    """How much is measured.

    Attributes:
      rounds: number of rounds; in each, every program takes its turn.
      call: least duration of a call in seconds.
      turn: target duration of a turn's calls in seconds.
      bandwidth: expected memory bandwidth in bytes per second.
    """

    rounds: int
    call: float
    turn: float
    bandwidth: float

    def copies(self, case: Timed) -> int:
        """Returns the number of arrays side by side in a program."""
        one = case.bytes * case.passes / self.bandwidth
        return int(np.clip(np.ceil(self.call / one), 1, MOST_COPIES))

    def calls(self, case: Timed, passes: int) -> int:
        """Returns the number of calls per turn for a program with so many passes."""
        one = case.bytes * passes * self.copies(case) / self.bandwidth
        return int(np.clip(self.turn / one, 3, 200))


MOST_COPIES = 16
FULL = Effort(rounds=11, call=3e-4, turn=8e-3, bandwidth=3e12)
REHEARSAL = Effort(rounds=3, call=2e-6, turn=1e-5, bandwidth=1e10)


def measure(
    cases: Sequence[Timed], effort: Effort, budget: Budget
) -> Iterator[dict[str, Any] | str]:
    """Yields a row for each comparison, or the reason why there is none."""
    for start in range(0, len(cases), TOGETHER):
        together = cases[start : start + TOGETHER]
        if not budget.allows(SECONDS_OF_ONE):
            yield from (f"{case}: {LATE}" for case in together)
            continue
        sources = {case: _sources(case, effort) for case in together}
        by_name = {
            f"{case} {name}": source
            for case, named in sources.items()
            for name, source in named.items()
        }
        ready, missing = compile_all(by_name, budget.left)
        for case in together:
            lacking = [missing[key] for key in missing if key.startswith(f"{case} ")]
            if lacking or not budget.allows(SECONDS_OF_ONE):
                yield f"{case}: {lacking[0] if lacking else LATE}"
                continue
            compiled = {name: ready[f"{case} {name}"] for name in sources[case]}
            yield _timed(case, compiled, effort)


DRAW = "draw"


def _sources(case: Timed, effort: Effort) -> dict[str, Source]:
    copies = effort.copies(case)
    made = {name: side_by_side(work, copies) for name, work in works(case).items()}
    return made | {DRAW: normal(case)}


def _timed(
    case: Timed, compiled: Mapping[str, Any], effort: Effort
) -> dict[str, Any] | str:
    calls = {
        name: effort.calls(case, 2 if name == "copy" else case.passes)
        for name in works(case)
    }
    try:
        programs = _programs(case, compiled, effort.copies(case), calls)
        seconds = interleaved({**programs, "nothing": _nothing()}, effort.rounds)
        calling = {name: each.seconds_to_call() for name, each in programs.items()}
    except Exception as error:  # most likely too large for this device
        return f"{case}: {reason(error)}"
    copies = effort.copies(case)
    return describe(case) | {
        "side_by_side": copies,
        "microseconds": {
            name: microseconds(seconds[name], seconds["nothing"], calls[name] * copies)
            for name in programs
        },
        "microseconds_to_call": {
            name: 1e6 * each / copies for name, each in calling.items()
        },
        "temporary_bytes": {name: temporaries(compiled[name]) for name in programs},
    }


def _programs(
    case: Timed, compiled: Mapping[str, Any], copies: int, calls: Mapping[str, int]
) -> dict[str, Repeated]:
    """Returns the programs, all of which read the same arrays."""
    keys = iter(jax.random.split(jax.random.key(0), 2 * copies))
    both = range(2 if case.mode == MODES[1] else 1)
    drawn = [tuple(compiled[DRAW](next(keys)) for _ in both) for _ in range(copies)]
    found = {}
    for name, work in works(case).items():
        own = [each[: len(work.own)] for each in drawn]
        results = side_by_side(work, copies).arguments[2]
        arguments = (noise(work.shared), own)
        found[name] = Repeated(compiled[name], arguments, results, calls[name])
    return found


def describe(case: Timed) -> dict[str, Any]:
    """Describes what is compared."""
    return {
        "op": case.op,
        "shape": case.size,
        "dtype": case.dtype,
        "mode": case.mode,
        "bytes": case.bytes,
        "least_passes": case.passes,
    }


def microseconds(
    seconds: np.ndarray, nothing: np.ndarray, times: int
) -> tuple[float, float, float]:
    """Returns the median and quartiles per unit of work, less the cost of one call."""
    quantiles = np.quantile(seconds, (0.5, 0.25, 0.75)) - np.median(nothing)
    median, lower, upper = (1e6 * np.maximum(quantiles, 1e-9) / times).tolist()
    return median, lower, upper


def temporaries(compiled: Any) -> int | None:
    """Returns the bytes needed beside arguments and results, or None if unknown."""
    found = compiled.memory_analysis()
    return None if found is None else int(found.temp_size_in_bytes)


def _nothing() -> Any:
    """Returns a call of a program that does next to nothing."""
    scalar = jnp.zeros(())
    compiled = jax.jit(lambda x: x + 1).lower(scalar).compile()
    return lambda: jax.block_until_ready(compiled(scalar))
