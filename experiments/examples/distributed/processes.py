"""The processes of one job, as children: when one ends early, all are ended, with a reason.

JAX's runtime raises no exception when it loses a process: it logs a C++ stack trace and
aborts, or crashes. So every user of it is a child, and the parent can report the reason.
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
# The status of a child that has printed what is wrong.
REFUSED = 2
LOST = 3  # the same, if it lost another process


class Child(NamedTuple):
    """A process and what it wrote to stderr."""

    process: subprocess.Popen
    log: IO[bytes]

    def said(self) -> str:
        """Everything it wrote, not yet shown to anyone, except gloo's greetings."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("[Gloo] Rank "))


def supervise(commands: Mapping[str, Sequence[str]], environment: dict[str, str]) -> None:
    """Runs the commands, by name, side by side until all are done.

    If one fails, or the user interrupts, all are ended. If this process is killed, they end
    as well, provided that they call `end_with_parent`.

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
            stdin=subprocess.PIPE,  # never written to; it closes when the parent ends
            stderr=log,
            start_new_session=True,  # Ctrl-C goes to the parent, which then ends them
        ) as process,
    ):
        try:
            yield Child(process, log)
        finally:
            process.kill()  # jax handles SIGTERM itself


def _refuse_failures(children: Mapping[str, Child]) -> None:
    failed = {name: each for name, each in children.items() if each.process.poll()}
    # A process that the others lost tells more about the cause than the others.
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
    """Makes the calling child end as soon as its parent has ended, for any reason."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would block an exit
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def deadline(seconds: float, message: Callable[[], str]) -> Iterator[None]:
    """Ends this process, with a line and status 2, if the block takes longer.

    A thread does it, because the main thread may be waiting in C++, deaf to exceptions.
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
