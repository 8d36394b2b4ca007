"""The other libraries: which are available, and in which version."""

import importlib.metadata
import importlib.util

from experiments.benchmarks import torch_programs
from experiments.benchmarks.comparison import JAX_PEERS
from experiments.harness.console import Refused

DISTRIBUTIONS = {
    "haiku": "dm-haiku",
    "equinox": "equinox",
    "keras": "keras",
    "torch": "torch",
}


def absence(name: str) -> str | None:
    """Returns why a library cannot take part, or None if it can."""
    if name == "torch":
        return torch_programs.absence()
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed"
    if name == "keras":
        import keras

        if keras.backend.backend() != "jax":
            return "keras runs on another backend"
    return None


def check() -> None:
    """Refuses to run without all JAX libraries, or with another backend of keras."""
    mends = {"keras runs on another backend": "set KERAS_BACKEND=jax."}
    for name in JAX_PEERS:
        reason = absence(name)
        if reason:
            mend = mends.get(reason, "pip install -e '.[benchmarks]'")
            raise Refused(f"{reason}; {mend}")


def versions() -> dict[str, str]:
    """Returns the versions of those that take part; every run records flax's anyway."""
    return {
        name: importlib.metadata.version(distribution)
        for name, distribution in DISTRIBUTIONS.items()
        if absence(name) is None
    }


def left_out(name: str, reason: str) -> str:
    """Returns the note on a library that takes no part."""
    return f"{name} cannot take part: {reason}"
