"""The programs that are timed: a norm, or a copy, of several arrays side by side.

A call takes a device's machine some microseconds, as long as a norm of few megabytes. So
one program has the norms of several arrays, each of its own numbers: none can be left out,
and together they do not fit into a cache. They are no loop: in the body of one XLA for a
GPU finds no single kernel for the norm of a row, as it does where scale and bias are
arguments of the program.
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
    """A function of arguments that all arrays share, and of those that each has of its own.

    Attributes:
      function: of them all, the shared ones first.
      shared: their shapes and dtypes.
      own: those of one array.
    """

    function: Function
    shared: tuple[Any, ...]
    own: tuple[Any, ...]


def works(case: Timed) -> dict[str, Work]:
    """The work of each, by name: the copy and the libraries."""
    x = jax.ShapeDtypeStruct(case.shape, case.dtype)
    found = {"copy": Work(copy, (jax.ShapeDtypeStruct((), case.dtype),), (x,))}
    for library, make in OPS[case.op].makers.items():
        found[library] = _norm(make(dtype=case.dtype), x, case.mode)
    return found


def copy(one: Any, x: Any) -> Any:
    """x·1, of which the compiler does not know that it is 1: one read and one write."""
    return x * one


def _norm(norm: nn.Module, x: jax.ShapeDtypeStruct, mode: str) -> Work:
    """The output and what the norm updates; and, with the backward pass, all gradients."""
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
    """The program of so many arrays; results take the memory of the last argument."""
    function = jax.jit(work.function)  # traced once

    def run(shared: Any, own: Any, results: Any) -> Any:
        del results
        found: list[Any] = []
        for each in own:
            # One after the other, or reductions of several arrays would share a kernel.
            held, _ = lax.optimization_barrier((each, found[-1:]))
            found.append(function(*shared, *held))
        return found

    arguments = (work.shared, [work.own] * copies)
    results = jax.eval_shape(run, *arguments, None)
    return Source(run, (*arguments, results), donated=(2,))


def normal(case: Timed) -> Source:
    """The program that draws an array of the case, N(0, 1), from a key."""

    def draw(key: Any) -> Any:
        return jax.random.normal(key, case.shape, case.dtype)

    return Source(draw, (jax.random.key(0),))


def noise(tree: Any) -> Any:
    """Small arrays of these shapes, N(0, 1); scalars are 1."""
    rng = np.random.default_rng(0)

    def fill(each: Any) -> Any:
        drawn = rng.standard_normal(each.shape) if each.shape else np.ones(())
        return jnp.asarray(drawn, each.dtype)

    return jax.tree.map(fill, tree)


class Repeated:
    """A compiled program with its arguments, which is called several times in a row.

    Args:
      compiled: the program.
      arguments: all but the last of it.
      results: the shapes of the last, which is written to.
      calls: how many in a row; the device works while the next one is being called.
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
        """Calls without waiting; each replaces what the last one computed."""
        for _ in range(calls):
            self._results = self._compiled(*self._arguments, self._results)

    def seconds_to_call(self, calls: int = 4) -> float:
        """What one call takes before it returns, while the device works."""
        jax.block_until_ready(self._results)
        start = time.perf_counter()
        self.enqueue(calls)
        taken = time.perf_counter() - start
        jax.block_until_ready(self._results)
        return taken / calls
