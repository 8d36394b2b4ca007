"""How a command ends: errors shown in one line, and the exit status.

Needs only Python, so that code on a borrowed machine can use it, too.
"""

import io
import os
import sys
from collections.abc import Callable

CLOSED_PIPE = 141  # as a shell reports a program that SIGPIPE ended


class Refused(Exception):
    """The request cannot be carried out; the message says why and how to fix it."""


class Interrupted(Exception):
    """The user stopped the run; the message says how to resume."""


def exit_status(run: Callable[[], None]) -> int:
    """Runs a command; turns what went wrong into one line and the exit status.

    Returns:
      0; 2 if the command refused; 130 if it was interrupted; 1 if the machine failed it, as
      by a full disk; 141, without a line, if nobody reads its output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        # What the terminal cannot show, such as σ in ASCII, is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            run()
        finally:  # also if argparse has printed its help and exits
            sys.stdout.flush()
    except Refused as error:
        return _failed(2, f"error: {error}")
    except Interrupted as error:
        return _failed(130, str(error))
    except KeyboardInterrupt:
        return _failed(130, "interrupted; the same command resumes.")
    except BrokenPipeError:
        # Otherwise Python would complain when it flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return CLOSED_PIPE
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _failed(1, f"error: {what}{error.strerror or error}.")
    return 0


def _failed(status: int, line: str) -> int:
    print(line, file=sys.stderr)
    return status
