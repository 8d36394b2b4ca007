"""How an experiment ends: errors shown in one line, and the exit status.

Needs only Python, so that code on a borrowed machine can use it, too.
"""

import sys
from collections.abc import Callable


class Refused(Exception):
    """The request cannot be carried out; the message says why and how to fix it."""


class Interrupted(Exception):
    """The user stopped the run; the message says how to resume."""


def exit_status(run: Callable[[], None]) -> int:
    """Runs the function; turns what went wrong into one line and the exit status."""
    try:
        run()
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted; the same command resumes.", file=sys.stderr)
        return 130
    return 0
