"""The interface of a norm in one library, and the inputs that all libraries share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]

EPSILON = 1e-5
MOMENTUM = 0.99  # the weight of the old value; torch's is 1 − MOMENTUM

# Some libraries divide their average by 1 − MOMENTUMᵗ after t steps. After this many steps
# the divisor is 1, so that all libraries start from the same statistics.
STEPS_BEFORE = 10_000


class Inputs(NamedTuple):
    """The inputs of a norm, channels last, as float32 values that the dtype represents.

    Attributes:
      x: the input.
      g: the cotangent of y.
      params: "scale" and "bias", in this order, as far as the norm has them.
      statistics: the running mean and variance; empty if the norm has none.
    """

    x: np.ndarray
    g: np.ndarray
    params: Mapping[str, np.ndarray]
    statistics: tuple[np.ndarray, ...]

    @classmethod
    def draw(
        cls, shape: Shape, dtype: str, mean: float = 1, deviation: float = 2
    ) -> "Inputs":
        """Draws the same numbers every time, with features on the last axis.

        Args:
          shape: the shape of x.
          dtype: the dtype to which x and the cotangent are rounded.
          mean: the mean of x before rounding.
          deviation: the standard deviation of x before rounding.
        """
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        x, g = (
            drawn.astype(jnp.dtype(dtype)).astype(np.float32)
            for drawn in (mean + deviation * normal(*shape), normal(*shape))
        )
        scale, bias, running, var = (normal(shape[-1]) for _ in range(4))
        params = {"scale": 1 + 0.1 * scale, "bias": 0.1 * bias}
        return cls(x, g, params, (1 + 0.1 * running, np.exp(var)))


class Outputs(NamedTuple):
    """The results of a call, channels last, in float64; None if the mode lacks them."""

    y: np.ndarray | None = None
    dx: np.ndarray | None = None
    dscale: np.ndarray | None = None
    dbias: np.ndarray | None = None
    mean: np.ndarray | None = None
    var: np.ndarray | None = None


def keras_policy(dtype: str) -> str:
    """Returns keras's policy for computing in this dtype with float32 variables."""
    return {"bfloat16": "mixed_bfloat16"}.get(dtype, dtype)


@dataclass(frozen=True)
class Layer:
    """A norm of one JAX library, as pure functions.

    Attributes:
      train: `train(params, state, x) -> (y, state)`, with params named as in `Inputs`.
      evaluate: `evaluate(params, state, x) -> y`.
      state: the library's own state with the running statistics; None without any.
      statistics: `statistics(state) -> (mean, var)`.
      channels_first: whether x has its features first; each library gets its own layout,
        so that no time includes a transposition.
    """

    train: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
    evaluate: Callable[[Any, Any, jax.Array], jax.Array]
    state: Any = None
    statistics: Callable[[Any], tuple[Any, Any]] = lambda state: (None, None)
    channels_first: bool = False


class Program(NamedTuple):
    """A program to time.

    Attributes:
      call: does the work and waits for it.
      read: `read(result) -> Outputs`, for the result of a call.
      compile_seconds: the time for tracing, lowering and compiling.
      temporary_bytes: the memory that XLA allocates beside arguments and results.
      residual_bytes: the size of the residuals.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Outputs]
    compile_seconds: float = np.nan
    temporary_bytes: float = np.nan
    residual_bytes: float = np.nan
