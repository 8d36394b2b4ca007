"""The errors of each implementation, and the bound that jaxnorm's errors keep."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from experiments.benchmarks import batch_norm, peers, programs, torch_programs
from experiments.benchmarks.accuracy.tables import FIGURES, NAMES, TWO_PASSES
from experiments.benchmarks.comparison import OURS
from experiments.benchmarks.layers import Inputs, Outputs, Shape
from experiments.benchmarks.ops import OPS

OP = OPS["batch_norm"]
MODE = "forward-backward"
MEANS = {
    "float32": (0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6),
    "bfloat16": (0, 100, 1e4),
    "float16": (0, 100, 1e4),
}
QUICK_MEANS = {"float32": (0, 100, 1e4, 1e6), "bfloat16": (0, 100), "float16": (0, 1e4)}
SHAPE, QUICK_SHAPE = (4096, 64), (256, 8)

BUILDERS = dict(OP.layers) | {
    TWO_PASSES: functools.partial(
        batch_norm.linen,
        module=functools.partial(nn.BatchNorm, use_fast_variance=False),
    ),
}


class Case(NamedTuple):
    """The data that every implementation receives."""

    dtype: str
    mean: float


def cases(*, quick: bool) -> list[Case]:
    """Returns all data, grouped by dtype."""
    chosen = QUICK_MEANS if quick else MEANS
    return [Case(dtype, mean) for dtype, means in chosen.items() for mean in means]


def draw(case: Case, shape: Shape) -> Inputs:
    """Draws the data; y is to have no scale and no bias."""
    inputs = Inputs.draw(shape, case.dtype, mean=case.mean, deviation=1)
    return inputs._replace(
        params={
            "scale": np.ones_like(inputs.params["scale"]),
            "bias": np.zeros_like(inputs.params["bias"]),
        }
    )


def measure(
    case: Case, inputs: Inputs, absent: frozenset[str], note: Callable[[str], None]
) -> np.ndarray:
    """Returns the figures of a case, (NAMES, FIGURES); NaN is a non-finite error.

    Args:
      case: the case that the inputs were drawn for.
      inputs: the data.
      absent: libraries that are not installed.
      note: called with a note on those that are installed but fail.
    """
    figures = np.full((len(NAMES), len(FIGURES)), np.nan)
    y, dx = OP.reference(inputs, train=True), OP.reference_dx(inputs)
    bounds = bound(inputs, y)
    for row, name in zip(figures, NAMES, strict=True):
        if name in absent:
            continue
        try:
            outputs, bits = run(name, case, inputs)
        except Exception as error:  # libraries fail in many ways
            if name == OURS:
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            note(peers.left_out(f"{name}, in {case.dtype},", reason))
            continue
        off = np.abs(_given(outputs.y) - y)
        off_dx = np.abs(_given(outputs.dx) - dx)
        row[:] = (
            _largest(off),
            _largest(off_dx) / np.abs(dx).max(),
            _largest(off / bounds),
            bits,
        )
    return figures


def run(name: str, case: Case, inputs: Inputs) -> tuple[Outputs, int]:
    """Returns the results of an implementation, and the bits of its y."""
    if name == "torch":
        program = torch_programs.program(batch_norm.torch_forward, MODE, inputs, case.dtype)
    else:
        layer = BUILDERS[name](inputs, "float32")
        program = programs.program(layer, MODE, inputs, case.dtype)
    result: Any = program.call()
    y = result[0] if name == "torch" else result["y"]
    return program.read(result), 8 * y.dtype.itemsize


def bound(inputs: Inputs, y: np.ndarray) -> np.ndarray:
    """Returns jaxnorm's bound for each element of y: 4·2⁻²³·(1 + |μ|/σ)·max(1, |y|).

    Infinite where x is constant; the bound does not cover that case.
    """
    x = np.asarray(inputs.x, np.float64)
    with np.errstate(divide="ignore"):
        ratio = np.abs(x.mean(0)) / x.std(0)
    return 4 * 2.0**-23 * (1 + ratio) * np.maximum(1, np.abs(y))


def _given(array: np.ndarray | None) -> np.ndarray:
    assert array is not None, f"{MODE} gives both y and dx"
    return array


def _largest(errors: np.ndarray) -> float:
    """Returns the largest error, or NaN if any element is not finite."""
    return float(errors.max()) if np.isfinite(errors).all() else np.nan


def nested(cases: list[Case], figures: np.ndarray, deviations: np.ndarray) -> dict:
    """Returns means, standard deviations and each implementation's figures, by dtype."""
    result: dict[str, Any] = {}
    for dtype in dict.fromkeys(case.dtype for case in cases):
        rows = [row for row, case in enumerate(cases) if case.dtype == dtype]
        result[dtype] = {
            "mean": np.array([float(cases[row].mean) for row in rows]),
            "deviation": deviations[rows],
            "implementations": {
                name: dict(zip(FIGURES, figures[rows, column].T, strict=True))
                for column, name in enumerate(NAMES)
                if np.isfinite(figures[rows, column]).any()
            },
        }
    return result
