"""How an experiment ends: the errors it shows in one line, and the status of the process.

Needs nothing but Python, so that what runs on a borrowed machine can use it too.
"""

import sys
from collections.abc import Callable


class Refused(Exception):
    """What the user asked for cannot be done; the message says why and how to mend it."""


class Interrupted(Exception):
    """The user stopped the run; the message says how to go on."""


def exit_status(run: Callable[[], None]) -> int:
    """Runs, and turns what went wrong into one line and the status of the process."""
    try:
        run()
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted; the same command goes on.", file=sys.stderr)
        return 130
    return 0
