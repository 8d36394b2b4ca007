"""How an experiment speaks to the person who runs it."""

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False, markup=False, soft_wrap=True)


class Refused(Exception):
    """What the user asked for cannot be done; the message says why and how to mend it."""


class Interrupted(Exception):
    """The user stopped the run; the message says how to go on."""


def progress_bar() -> Progress:
    """For steps whose number is known."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )


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
