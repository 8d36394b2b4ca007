"""Reads the zip files of torch.save, by torch, which unpickles only tensors from them."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.interop.files.checks import (
    BFLOAT16,
    check_claims,
    check_dtypes,
    library,
    reading,
    some,
)

SAFEST = (2, 6)  # before, a file could run code even with weights_only (CVE-2025-32434)
SAVE = "torch.save(model.state_dict(), path)"


def read(path: Path, entry: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a state dict: the file itself, or the only one in it, or `entry`."""
    torch = library("torch", path)
    version = tuple(int(each) for each in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFEST:
        raise ImportError(
            f"{path} is read by torch, and {torch.__version__} is installed, in which a "
            "file can run code even with weights_only=True; install torch 2.6 or later."
        )
    saved = _loaded(torch, path)
    state = _state(torch, path, saved, entry)
    dtypes = {name: _dtype(torch, tensor) for name, tensor in state.items()}
    check_dtypes(path, dtypes)
    for tensor in state.values():
        # One that was expanded has few values in the file, whatever its shape.
        stored = tensor.untyped_storage().nbytes()
        check_claims(path, tensor.numel() * tensor.element_size(), stored)
    with reading(path, "tensors"):
        return {name: _array(torch, tensor) for name, tensor in state.items()}


def _loaded(torch: Any, path: Path) -> Any:
    try:
        with reading(path, "a file of torch.save"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ValueError as error:
        cause = error.__cause__
        if not isinstance(cause, pickle.UnpicklingError):
            raise
        # Its own advice is to unpickle everything.
        found = re.search(r"GLOBAL (\S+)", str(cause))
        raise ValueError(
            f"{path} holds {found[1] if found else 'something'} that is no tensor, but "
            "only tensors by name are read, as unpickling anything else can run any code. "
            f"Save the state dict alone, with the program that wrote the file: {SAVE}."
        ) from cause


def _state(torch: Any, path: Path, saved: Any, entry: str | None) -> Mapping[str, Any]:
    """Finds the mapping of names to tensors."""
    if not isinstance(saved, Mapping):
        raise ValueError(
            f"{path} holds {type(saved).__name__}, but a state dict is expected: {SAVE}."
        )
    if entry is None and _is_state(torch, saved):
        return saved
    states = {key: each for key, each in saved.items() if _is_state(torch, each)}
    if entry in states or (entry is None and len(states) == 1):
        return states[next(iter(states)) if entry is None else entry]
    if states:
        raise ValueError(
            f"{path} holds the state dicts {some(states)}, and "
            + ("nothing says which to read" if entry is None else f"not {entry!r}")
            + f"; pass read_weights(path, entry={next(iter(states))!r}), or another."
        )
    if entry is not None:
        raise ValueError(
            f"{path} holds no state dict in {entry!r}, nor in another entry; leave entry "
            "out if the whole file is one."
        )
    strange = [key for key, each in saved.items() if not isinstance(each, torch.Tensor)]
    which = f"{some(strange)} {'is' if len(strange) == 1 else 'are'} something else"
    raise ValueError(
        f"{path} holds no state dict, which is a mapping of names to tensors only: "
        f"{which if strange else 'there are none, or some names are no text'}. Save it "
        f"without, or alone: {SAVE}."
    )


def _is_state(torch: Any, value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and all(isinstance(each, torch.Tensor) for each in value.values())
    )


def _dtype(torch: Any, tensor: Any) -> str:
    """The dtype as NumPy names it, or what keeps the tensor from being an array."""
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.device.type != "cpu":
        return f"{tensor.device.type} (no values)"
    return str(tensor.dtype).removeprefix("torch.")


def _array(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()
