"""The libraries that the benchmarks compare with."""

import importlib
import importlib.util

import pytest


@pytest.fixture
def need(monkeypatch):
    """`need(name)` imports a library, or skips the test if it is not installed.

    A library that is installed but fails to import fails the test, not skips it as
    `pytest.importorskip` would.
    """
    # Keras reads this once, when it is first imported.
    monkeypatch.setenv("KERAS_BACKEND", "jax")

    def found(*names: str) -> None:
        for name in names:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")
            importlib.import_module(name)

    return found
