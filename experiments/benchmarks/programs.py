"""The modes of a benchmark as compiled programs, for every JAX library."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.layers import Inputs, Layer, Outputs, Program


def evaluate(layer: Layer, params: Any, state: Any, x: jax.Array, g: jax.Array) -> Any:
    """Normalises by the running statistics."""
    return {"y": layer.evaluate(params, state, x)}


def train(layer: Layer, params: Any, state: Any, x: jax.Array, g: jax.Array) -> Any:
    """Normalises by the batch statistics and updates the running ones."""
    y, state = layer.train(params, state, x)
    return {"y": y, "state": state}


def pull_back(layer: Layer, params: Any, state: Any, x: jax.Array, g: jax.Array) -> Any:
    """Same as `train`, and returns the function that pulls a cotangent of y back."""
    y, vjp, state = jax.vjp(
        lambda params, x: layer.train(params, state, x), params, x, has_aux=True
    )
    return {"y": y, "state": state, "vjp": vjp}


def backward(vjp: Any, g: jax.Array) -> Any:
    """Pulls the cotangent back."""
    dparams, dx = vjp(g)
    return {"dx": dx, "dparams": dparams}


def both(layer: Layer, params: Any, state: Any, x: jax.Array, g: jax.Array) -> Any:
    """Runs both passes; returns y, too, or the forward pass could be left out."""
    forward = pull_back(layer, params, state, x, g)
    g = g.astype(forward["y"].dtype)  # no work unless y and x differ in dtype
    return {"y": forward["y"], "state": forward["state"]} | backward(forward["vjp"], g)


FUNCTIONS = {"eval-forward": evaluate, "train-forward": train, "forward-backward": both}


def arguments_of(layer: Layer, inputs: Inputs, dtype: str) -> tuple:
    """Returns params, state, x and g on the device, in the library's layout."""

    def place(each: np.ndarray) -> jax.Array:
        each = np.moveaxis(each, -1, 1) if layer.channels_first else each
        return jnp.asarray(np.ascontiguousarray(each), dtype)

    params = {name: jnp.asarray(each) for name, each in inputs.params.items()}
    return params, layer.state, place(inputs.x), place(inputs.g)


def compiled(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """Returns the function compiled for these arguments, and the seconds it took."""
    start = time.perf_counter()
    made = jax.jit(function).lower(*arguments).compile()
    return made, time.perf_counter() - start


def temporary_bytes(made: Any) -> float:
    """Returns the bytes that a call allocates; NaN if the backend does not report them."""
    return getattr(made.memory_analysis(), "temp_size_in_bytes", np.nan)


def program(layer: Layer, mode: str, inputs: Inputs, dtype: str) -> Program:
    """Returns a compiled mode of a layer."""
    arguments, residuals = arguments_of(layer, inputs, dtype), np.nan
    if mode == "backward":
        forward, _ = compiled(functools.partial(pull_back, layer), *arguments)
        vjp = forward(*arguments)["vjp"]
        residuals = float(sum(leaf.nbytes for leaf in jax.tree.leaves(vjp)))
        function, arguments = backward, (vjp, arguments[-1])
    else:
        function = functools.partial(FUNCTIONS[mode], layer)
    made, seconds = compiled(function, *arguments)
    return Program(
        lambda: jax.block_until_ready(made(*arguments)),
        lambda result: outputs(layer, result),
        seconds,
        temporary_bytes(made),
        residuals,
    )


def outputs(layer: Layer, result: dict[str, Any]) -> Outputs:
    """Converts a program's results to float64, channels last."""

    def big(name: str) -> np.ndarray | None:
        if name not in result:
            return None
        each = np.asarray(result[name], np.float64)
        return np.moveaxis(each, 1, -1) if layer.channels_first else each

    dparams = result.get("dparams", {})
    mean, var = layer.statistics(result["state"]) if "state" in result else (None, None)
    small = (
        None if each is None else np.asarray(each, np.float64)
        for each in (dparams.get("scale"), dparams.get("bias"), mean, var)
    )
    return Outputs(big("y"), big("dx"), *small)


def copy(inputs: Inputs, dtype: str) -> Program:
    """Reads and writes x once, which measures the machine's bandwidth at that moment."""
    x = jnp.asarray(inputs.x, dtype)
    made, seconds = compiled(jnp.copy, x)
    return Program(lambda: made(x).block_until_ready(), lambda y: Outputs(), seconds)
