"""The modes of a benchmark in torch, which runs eagerly and keeps its own graph."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.layers import Inputs, Outputs, Program


class Tensors(NamedTuple):
    """The inputs as tensors; channels come second."""

    x: Any
    g: Any
    params: tuple[Any, Any]
    statistics: tuple[Any, Any]


def absence() -> str | None:
    """Why torch cannot take part, or None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    platform = jax.default_backend()
    if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
        return None
    return f"torch has no device of the kind that jax measures on ({platform})"


def tensors_of(inputs: Inputs, dtype: str) -> Tensors:
    """The inputs on the device that jax measures on."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"

    # Only the strides change: torch calls that channels_last. On two cores it is the
    # faster format for batch norm, and it is the order in which the others have x.
    def place(each: np.ndarray) -> Any:
        return torch.tensor(each).to(device, getattr(torch, dtype)).movedim(-1, 1)

    def vector(each: np.ndarray) -> Any:
        return torch.tensor(each, device=device)

    params = (vector(inputs.scale), vector(inputs.bias))
    x = place(inputs.x)
    for each in (x, *params):
        each.requires_grad_()
    return Tensors(x, place(inputs.g), params, (vector(inputs.mean), vector(inputs.var)))


def program(forward: Callable, mode: str, inputs: Inputs, dtype: str) -> Program:
    """A mode of `forward(tensors, train=...) -> y`."""
    import torch

    tensors = tensors_of(inputs, dtype)
    call = _call(forward, mode, tensors)

    def ready() -> Any:
        result = call()
        if tensors.x.is_cuda:
            torch.cuda.synchronize()
        return result

    def read(result: tuple) -> Outputs:
        y, gradients = result
        dx, dscale, dbias = gradients or (None, None, None)
        updated = tensors.statistics if mode.startswith(("train", "forward")) else ()
        return Outputs(_big(y), _big(dx), *map(_small, (dscale, dbias, *updated)))

    return Program(ready, read)


def _call(forward: Callable, mode: str, tensors: Tensors) -> Callable[[], tuple]:
    """Gives y and the gradients of x, scale and bias, each None where not in the mode."""
    import torch

    leaves = (tensors.x, *tensors.params)

    def alone() -> tuple:
        with torch.no_grad():
            return forward(tensors, train=mode == "train-forward"), None

    def both() -> tuple:
        y = forward(tensors, train=True)
        return y, torch.autograd.grad(y, leaves, tensors.g)

    if mode == "forward-backward":
        return both
    if mode != "backward":
        return alone
    y = forward(tensors, train=True)
    return lambda: (
        None,
        torch.autograd.grad(y, leaves, tensors.g, retain_graph=True),
    )


def _big(tensor: Any) -> np.ndarray | None:
    return None if tensor is None else _small(tensor.movedim(1, -1))


def _small(tensor: Any) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().double().cpu().numpy()
