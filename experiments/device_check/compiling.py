"""Compiles many programs at once, which for a GPU takes longer than running them."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax

Compiled = Callable[..., Any]


class Source(NamedTuple):
    """A function to compile, and arguments of the shapes that it is called with.

    Attributes:
      function: a pure function of arrays.
      arguments: arrays, or their shapes and dtypes.
      donated: indices of the arguments whose memory the results may reuse.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...] = ()

    def compile(self) -> Any:
        """Compiles the executable."""
        # Some donated arguments are unused, and only lend their memory.
        jitted = jax.jit(self.function, donate_argnums=self.donated, keep_unused=True)
        return jitted.lower(*self.arguments).compile()


LATE = "no time left"


def compile_all(
    sources: Mapping[str, Source], seconds: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compiles programs in parallel.

    Args:
      sources: the programs, by name.
      seconds: the time after which unfinished programs are abandoned.

    Returns:
      The executables by name, and the reasons for those that are missing.
    """
    pool = ThreadPoolExecutor(max_workers=_workers())
    futures = {name: pool.submit(each.compile) for name, each in sources.items()}
    wait(futures.values(), timeout=seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    ready: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, future in futures.items():
        if future.cancelled() or not future.done():
            missing[name] = LATE
        elif error := future.exception():
            missing[name] = reason(error)
        else:
            ready[name] = future.result()
    return ready, missing


def reason(error: BaseException) -> str:
    """Returns an error's type and the first line of its message, shortened if long."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


def _workers() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
