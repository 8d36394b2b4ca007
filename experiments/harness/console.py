"""Console output of the experiments."""

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
    """Returns a progress bar for a known number of steps."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )
