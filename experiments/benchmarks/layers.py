"""A norm as one library has it, and the numbers that every library is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]

EPSILON = 1e-5
MOMENTUM = 0.99  # the weight of the old value; torch's is 1 − MOMENTUM

# Some libraries divide their average by 1 − MOMENTUMᵗ after t steps. With this many
# behind it the divisor is 1, and all libraries start from the same statistics.
STEPS_BEFORE = 10_000


class Inputs(NamedTuple):
    """What a norm is given, channels last, as float32 that the dtype represents.

    Attributes:
      x: what is normalised.
      g: the cotangent of y.
      params: "scale" and "bias", or those of them that the norm has, in this order.
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
        """Always the same numbers, with features on the last axis.

        Args:
          shape: of x.
          dtype: what x and the cotangent are rounded to.
          mean: of x, before it is rounded.
          deviation: of x, likewise.
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
    """What a call gave, channels last, as float64; None is what its mode does not give."""

    y: np.ndarray | None = None
    dx: np.ndarray | None = None
    dscale: np.ndarray | None = None
    dbias: np.ndarray | None = None
    mean: np.ndarray | None = None
    var: np.ndarray | None = None


def keras_policy(dtype: str) -> str:
    """The policy of a layer of keras that computes in this dtype, by float32 variables."""
    return {"bfloat16": "mixed_bfloat16"}.get(dtype, dtype)


@dataclass(frozen=True)
class Layer:
    """A norm of one JAX library, as pure functions.

    Attributes:
      train: `train(params, state, x) -> (y, state)`, params named as those of `Inputs`.
      evaluate: `evaluate(params, state, x) -> y`.
      state: the library's own, holding the running statistics; None if it has none.
      statistics: `statistics(state) -> (mean, var)`.
      channels_first: where the features of x are; each library has its own layout, so
        that nobody's time holds a transposition.
    """

    train: Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
    evaluate: Callable[[Any, Any, jax.Array], jax.Array]
    state: Any = None
    statistics: Callable[[Any], tuple[Any, Any]] = lambda state: (None, None)
    channels_first: bool = False


class Program(NamedTuple):
    """What is timed.

    Attributes:
      call: does the work and waits for it.
      read: `read(result) -> Outputs` of the first call's result.
      compile_seconds: for tracing, lowering and compiling.
      temporary_bytes: what XLA allocates beside arguments and results.
      residual_bytes: what the forward pass keeps for the backward pass.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Outputs]
    compile_seconds: float = np.nan
    temporary_bytes: float = np.nan
    residual_bytes: float = np.nan
