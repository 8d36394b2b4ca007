"""What must be in the environment before the process that measures starts."""

import os
import sys
from collections.abc import Mapping, Sequence

# Memory that malloc gives back is faulted in again, page by page, by the next call: on
# big arrays that takes longer than the arithmetic.
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

# XLA's host then has as many devices as the collectives are counted for.
HOST_DEVICES = "--xla_force_host_platform_device_count=8"


def compiling(environ: Mapping[str, str]) -> dict[str, str]:
    """What compiling for other machines requires: to start no backend but the CPU's."""
    flags = environ.get("XLA_FLAGS", "")
    if HOST_DEVICES not in flags:
        flags = f"{flags} {HOST_DEVICES}".strip()
    # The third: XLA warns of every accelerator that it does not find.
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}


def missing(
    environ: Mapping[str, str], required: Mapping[str, str] = REQUIRED
) -> dict[str, str]:
    """What an environment lacks of what is required."""
    return {name: value for name, value in required.items() if environ.get(name) != value}


def ensure(
    module: str, arguments: Sequence[str], required: Mapping[str, str] = REQUIRED
) -> None:
    """Starts the process again as `python -m module`, once, if it lacks something."""
    lacking = missing(os.environ, required)
    if lacking:
        command = [sys.executable, "-m", module, *arguments]
        os.execve(sys.executable, command, {**os.environ, **lacking})
