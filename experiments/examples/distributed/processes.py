"""The processes of one job, as children: what ends one of them ends all, with a line why.

JAX's runtime raises nothing when it loses a process: it logs a stack of C++ and aborts, or
crashes. So whatever uses it is a child here, and the parent, which does not, can say so.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from experiments.harness.console import Refused

POLL = 0.05  # seconds
# The status of a child that said itself, in a line, what is wrong.
REFUSED = 2
LOST = 3  # and that is that it lost another


class Child(NamedTuple):
    """A process, and what it wrote to stderr."""

    process: subprocess.Popen
    log: IO[bytes]

    def said(self) -> str:
        """All it wrote, which nobody has seen yet, but for gloo's greetings."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("[Gloo] Rank "))


def supervise(commands: Mapping[str, Sequence[str]], environment: dict[str, str]) -> None:
    """Runs the commands, by name, side by side until all are done.

    Once one fails, or the user interrupts, all are ended. So they are when this process
    is killed, if they call `end_with_parent`.

    Raises:
      Refused: one failed; what it wrote to stderr, or how it ended, says why.
    """
    with contextlib.ExitStack() as stack:
        children = {
            name: stack.enter_context(_started(command, environment))
            for name, command in commands.items()
        }
        while any(each.process.poll() is None for each in children.values()):
            time.sleep(POLL)
            _refuse_failures(children)
        _refuse_failures(children)


@contextlib.contextmanager
def _started(command: Sequence[str], environment: dict[str, str]) -> Iterator[Child]:
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: its end is the end of the parent
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends them
        ) as process,
    ):
        try:
            yield Child(process, log)
        finally:
            process.kill()  # jax keeps SIGTERM for itself


def _refuse_failures(children: Mapping[str, Child]) -> None:
    failed = {name: each for name, each in children.items() if each.process.poll()}
    # The one that another lost says more than that other.
    for name, child in sorted(failed.items(), key=lambda each: _lost(each[1])):
        raise Refused(_reason(name, child))


def _lost(child: Child) -> bool:
    return child.process.returncode in (-signal.SIGABRT, LOST)


def _reason(name: str, child: Child) -> str:
    status, said = child.process.returncode, child.said()
    errors = re.findall(r"^error: (.*)", said, re.MULTILINE)
    if status in (REFUSED, LOST) and errors:
        return errors[-1]
    fatal = re.search(r"absl::Status: (.*?)(?:\. |\n\n|\Z)", said, re.DOTALL)
    if _lost(child) and fatal:
        return f"{name} lost another, and was ended ({' '.join(fatal[1].split())})."
    if said:
        print(said, file=sys.stderr)
    if status < 0:
        return (
            f"{name} was ended by {signal.Signals(-status).name}, and so were the others."
        )
    return f"{name} failed, with the error above, and the others were ended."


def end_with_parent() -> None:
    """Called by a child: it ends as soon as the parent has, however that came."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock an exit would find taken
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def deadline(seconds: float, message: Callable[[], str]) -> Iterator[None]:
    """Ends this process, with a line and status 2, if the block takes any longer.

    A thread can, while the main thread waits in C++ and hears no exception.
    """

    def end() -> None:
        print(f"error: {message()}", file=sys.stderr, flush=True)
        os._exit(REFUSED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
