"""The modes of a benchmark in torch, which runs eagerly and records its own graph."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.layers import Inputs, Outputs, Program


class Tensors(NamedTuple):
    """The inputs as tensors, with the names of `Inputs`; channels come second."""

    x: Any
    g: Any
    params: dict[str, Any]
    statistics: tuple[Any, ...]


def absence() -> str | None:
    """Returns why torch cannot take part, or None if it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    platform = jax.default_backend()
    if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
        return None
    return f"torch has no device of the kind that jax measures on ({platform})"


def tensors_of(inputs: Inputs, dtype: str, *, channels_last: bool) -> Tensors:
    """Places the inputs on the device that jax measures on."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"

    # Without a copy only the strides change; torch calls this channels_last.
    def place(each: np.ndarray) -> Any:
        placed = torch.tensor(each).to(device, getattr(torch, dtype)).movedim(-1, 1)
        return placed if channels_last else placed.contiguous()

    def vector(each: np.ndarray) -> Any:
        return torch.tensor(each, device=device)

    params = {name: vector(each) for name, each in inputs.params.items()}
    x = place(inputs.x)
    for each in (x, *params.values()):
        each.requires_grad_()
    return Tensors(x, place(inputs.g), params, tuple(map(vector, inputs.statistics)))


def program(
    forward: Callable, mode: str, inputs: Inputs, dtype: str, *, channels_last: bool = True
) -> Program:
    """Returns a mode of a torch norm.

    Args:
      forward: `forward(tensors, train=...) -> y`.
      mode: the name of the mode.
      inputs: the inputs.
      dtype: the dtype of x.
      channels_last: the order in memory; torch gets the order in which it is faster.
    """
    import torch

    tensors = tensors_of(inputs, dtype, channels_last=channels_last)
    call = _call(forward, mode, tensors)

    def ready() -> Any:
        result = call()
        if tensors.x.is_cuda:
            torch.cuda.synchronize()
        return result

    def read(result: tuple) -> Outputs:
        y, gradients = result
        dx, *others = gradients or (None,)
        dparams = dict(zip(tensors.params, others, strict=False))  # none of an output
        updated = tensors.statistics if mode.startswith(("train", "forward")) else ()
        small = (dparams.get("scale"), dparams.get("bias"), *updated)
        return Outputs(_big(y), _big(dx), *map(_small, small))

    return Program(ready, read)


def _call(forward: Callable, mode: str, tensors: Tensors) -> Callable[[], tuple]:
    """Returns y and the gradients of x, scale and bias, each None if not in the mode."""
    import torch

    leaves = (tensors.x, *tensors.params.values())

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
