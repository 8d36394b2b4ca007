"""How an experiment speaks to the person who runs it."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.harness.status import Interrupted as Interrupted
from experiments.harness.status import Refused as Refused
from experiments.harness.status import exit_status as exit_status

console = Console(highlight=False, markup=False, soft_wrap=True)


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
