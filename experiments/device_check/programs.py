"""The programs that are timed: a norm, or a copy, applied to several arrays.

Calling a device's program takes some microseconds, as long as a norm of a few megabytes. So
one program applies the norm to several arrays, each with its own numbers: none can be left
out, and together they do not fit into a cache. It is not a loop: in the body of a loop, XLA
for a GPU does not find a single kernel for the norm of a row, as it does where scale and
bias are arguments of the program.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.device_check.compiling import Source
from experiments.device_check.shapes import OPS, Timed

Function = Callable[..., Any]


class Work(NamedTuple):
    """A function with arguments shared by all arrays, and arguments of each array.

    Attributes:
      function: takes all arguments, the shared ones first.
      shared: shapes and dtypes of the shared arguments.
      own: shapes and dtypes of the arguments of one array.
    """

    function: Function
    shared: tuple[Any, ...]
    own: tuple[Any, ...]


def works(case: Timed) -> dict[str, Work]:
    """Returns the work of the copy and of each library, by name."""
    x = jax.ShapeDtypeStruct(case.shape, case.dtype)
    found = {"copy": Work(copy, (jax.ShapeDtypeStruct((), case.dtype),), (x,))}
    for library, make in OPS[case.op].makers.items():
        found[library] = _norm(make(dtype=case.dtype), x, case.mode)
    return found


def copy(one: Any, x: Any) -> Any:
    """x·1, where the compiler does not know the 1: one read and one write."""
    return x * one


def _norm(norm: nn.Module, x: jax.ShapeDtypeStruct, mode: str) -> Work:
    """The output and the norm's updates; for the backward pass also all gradients."""
    variables = dict(jax.eval_shape(lambda x: norm.init(jax.random.key(0), x), x))
    params = variables.pop("params")

    def forward(params: Any, state: Any, x: Any) -> Any:
        return norm.apply({"params": params, **state}, x, mutable=list(state))

    def both(params: Any, state: Any, x: Any, g: Any) -> Any:
        y, back, updates = jax.vjp(
            lambda params, x: forward(params, state, x), params, x, has_aux=True
        )
        return y, updates, back(g)

    if mode == "forward":
        return Work(forward, (params, variables), (x,))
    return Work(both, (params, variables), (x, x))


def side_by_side(work: Work, copies: int) -> Source:
    """Returns the program for several arrays; results reuse the last argument's memory."""
    function = jax.jit(work.function)  # traced once

    def run(shared: Any, own: Any, results: Any) -> Any:
        del results
        found: list[Any] = []
        for each in own:
            # One after another: reductions of several arrays could share a kernel.
            held, _ = lax.optimization_barrier((each, found[-1:]))
            found.append(function(*shared, *held))
        return found

    arguments = (work.shared, [work.own] * copies)
    results = jax.eval_shape(run, *arguments, None)
    return Source(run, (*arguments, results), donated=(2,))


def normal(case: Timed) -> Source:
    """Returns the program that draws an array of the case, N(0, 1), from a key."""

    def draw(key: Any) -> Any:
        return jax.random.normal(key, case.shape, case.dtype)

    return Source(draw, (jax.random.key(0),))


def noise(tree: Any) -> Any:
    """Returns small arrays of these shapes, N(0, 1); scalars are 1."""
    rng = np.random.default_rng(0)

    def fill(each: Any) -> Any:
        drawn = rng.standard_normal(each.shape) if each.shape else np.ones(())
        return jnp.asarray(drawn, each.dtype)

    return jax.tree.map(fill, tree)


class Repeated:
    """A compiled program with its arguments, called several times in a row.

    Args:
      compiled: the program.
      arguments: all its arguments except the last.
      results: the shapes of the last argument, which is overwritten.
      calls: number of calls in a row; the device works during the next call.
    """

    def __init__(self, compiled: Any, arguments: Any, results: Any, calls: int):
        self._compiled = compiled
        self._arguments = arguments
        self._results = jax.tree.map(
            lambda each: jnp.zeros(each.shape, each.dtype), results
        )
        self._calls = calls

    def __call__(self) -> None:
        """Runs all calls and waits for the last."""
        self.enqueue(self._calls)
        jax.block_until_ready(self._results)

    def enqueue(self, calls: int) -> None:
        """Calls without waiting; each call overwrites the previous results."""
        for _ in range(calls):
            self._results = self._compiled(*self._arguments, self._results)

    def seconds_to_call(self, calls: int = 4) -> float:
        """Returns how long a call takes to return while the device works."""
        jax.block_until_ready(self._results)
        start = time.perf_counter()
        self.enqueue(calls)
        taken = time.perf_counter() - start
        jax.block_until_ready(self._results)
        return taken / calls
