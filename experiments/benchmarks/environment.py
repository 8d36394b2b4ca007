"""The environment variables that must be set before the measuring process starts."""

import os
import sys
from collections.abc import Mapping, Sequence

# Memory that malloc returns to the system is faulted in again, page by page, by the next
# call: for big arrays that takes longer than the arithmetic.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**30),
}
REQUIRED = {
    "KERAS_BACKEND": "jax",
    # torch's idle threads would otherwise spin on the cores that XLA is measured on.
    "OMP_WAIT_POLICY": "PASSIVE",
} | (MALLOC if sys.platform == "linux" else {})

# Gives the host as many devices as the collectives are counted for.
HOST_DEVICES = "--xla_force_host_platform_device_count=8"


def compiling(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for compiling for other machines, on the CPU backend only."""
    flags = environ.get("XLA_FLAGS", "")
    if HOST_DEVICES not in flags:
        flags = f"{flags} {HOST_DEVICES}".strip()
    # Level 3: XLA warns about every accelerator that it does not find.
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}


def missing(
    environ: Mapping[str, str], required: Mapping[str, str] = REQUIRED
) -> dict[str, str]:
    """Returns the required variables that an environment lacks."""
    return {name: value for name, value in required.items() if environ.get(name) != value}


def ensure(
    module: str, arguments: Sequence[str], required: Mapping[str, str] = REQUIRED
) -> None:
    """Restarts the process once as `python -m module` if the environment lacks any."""
    lacking = missing(os.environ, required)
    if lacking:
        command = [sys.executable, "-m", module, *arguments]
        os.execve(sys.executable, command, {**os.environ, **lacking})
