"""Cases: what is measured together, and the resulting figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import peers, programs, training_step
from experiments.benchmarks.comparison import COPY, FIGURES, IMPLEMENTATIONS, OURS, STEP
from experiments.benchmarks.layers import Inputs, Program, Shape
from experiments.benchmarks.ops import OPS
from experiments.benchmarks.timing import interleaved

Note = Callable[[str], None]


class Case(NamedTuple):
    """What is measured together: all implementations take turns."""

    op: str
    dtype: str
    shape: Shape
    mode: str

    @property
    def size(self) -> str:
        """The shape as written on the command line."""
        return "x".join(map(str, self.shape))


def cases(
    ops: Sequence[str],
    dtypes: Sequence[str],
    modes: Sequence[str],
    shapes: Sequence[Shape] | None,
    scale: str,
) -> list[Case]:
    """Returns all cases, with the given shapes or the ops' own shapes for this scale."""
    found = []
    for op in ops:
        row = OPS[op]
        alone = [mode for mode in modes if mode in row.passes]
        for dtype in dtypes:
            for shape in shapes or row.shapes[scale]:
                found += [Case(op, dtype, shape, mode) for mode in alone]
            if STEP in modes and row.networks:
                found.append(Case(op, dtype, row.images[scale], STEP))
    return found


def measure(case: Case, rounds: int, *, torch: bool, note: Note) -> np.ndarray:
    """Returns the figures of a case, (IMPLEMENTATIONS, FIGURES); NaN where missing.

    Args:
      case: the case to measure.
      rounds: the number of timed calls of each implementation.
      torch: whether torch takes part.
      note: called with a note on every library that turns out unable to take part.
    """
    inputs = None if case.mode == STEP else OPS[case.op].draw(case.shape, case.dtype)
    made = _steps(case) if inputs is None else _programs(case, inputs, note, torch=torch)
    errors = {} if inputs is None else _errors(case, inputs, made)
    seconds = interleaved({name: each.call for name, each in made.items()}, rounds)
    figures = np.full((len(IMPLEMENTATIONS), len(FIGURES)), np.nan)
    medians = {name: np.median(each) for name, each in seconds.items()}
    size = np.prod(case.shape) * jnp.dtype(case.dtype).itemsize
    for name, each in made.items():
        moved = OPS[case.op].passes.get(case.mode, np.nan) / 2  # a copy has two passes
        share = moved * medians.get(COPY, np.nan) / medians[name]
        figures[IMPLEMENTATIONS.index(name)] = (
            *(1e3 * np.quantile(seconds[name], (0.5, 0.25, 0.75))),
            medians[OURS] / medians[name],
            np.nan if name == COPY else share,
            each.residual_bytes / size,
            each.temporary_bytes,
            each.compile_seconds,
            errors.get(name, np.nan),
        )
    return figures


def _steps(case: Case) -> dict[str, Program]:
    networks = OPS[case.op].networks
    return {
        name: training_step.program(norm, case.shape, case.dtype)
        for name, norm in networks.items()
    }


def _programs(case: Case, inputs: Inputs, note: Note, *, torch: bool) -> dict[str, Program]:
    """Returns a program of each implementation; leaves out peers that fail, with a note."""
    op, made = OPS[case.op], {COPY: programs.copy(inputs, case.dtype)}
    builders = dict(op.layers) | ({"torch": op.torch} if torch and op.torch else {})
    for name, build in builders.items():
        try:
            made[name] = _program(name, build, case, inputs)
        except Exception as error:  # libraries fail in many ways
            if name == OURS:
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            note(peers.left_out(f"{name}, {case.op} in {case.dtype},", reason))
    return made


def _program(name: str, build: Callable, case: Case, inputs: Inputs) -> Program:
    if name == "torch":
        return build(case.mode, inputs, case.dtype)
    layer = build(inputs, case.dtype)
    return programs.program(layer, case.mode, inputs, case.dtype)


def _errors(case: Case, inputs: Inputs, made: Mapping[str, Program]) -> dict[str, float]:
    """Returns the largest error of y, for each implementation whose mode returns y."""
    if case.mode == "backward":  # returns no y
        return {}
    train = case.mode != "eval-forward"
    expected = OPS[case.op].reference(inputs, train=train)
    errors = {}
    for name, each in made.items():
        y = each.read(each.call()).y
        if y is not None:
            errors[name] = float(np.max(np.abs(y - expected)))
    return errors


def nested(cases: Sequence[Case], figures: np.ndarray) -> dict[str, Any]:
    """Returns `result[op][dtype][shape][mode][implementation][figure]` without NaN."""
    result: dict[str, Any] = {}
    for case, table in zip(cases, figures, strict=True):
        by_mode = result.setdefault(case.op, {}).setdefault(case.dtype, {})
        by_mode.setdefault(case.size, {})[case.mode] = {
            name: {
                figure: float(value)
                for figure, value in zip(FIGURES, row, strict=True)
                if np.isfinite(value)
            }
            for name, row in zip(IMPLEMENTATIONS, table, strict=True)
            if np.isfinite(row).any()
        }
    return result
