"""A study: what an experiment asks, how it measures, and what is made of the history."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress
from rich.table import Table

from experiments.harness import options
from experiments.harness.comparing import History, compare
from experiments.harness.console import console, exit_status
from experiments.harness.data import Dataset
from experiments.harness.results import Verdict, cells, show
from experiments.harness.runs import Run
from experiments.harness.training import Arm
from experiments.models import parameter_count


class Study(NamedTuple):
    """One experiment.

    Attributes:
      name: that of its module.
      parser: its options, with those that all share.
      measure: `measure(run, dataset, chosen) -> history`, resumable by what `run` has, so
        that nothing is computed twice.
      verdicts: the claims, with what the history says of them. One that names rows of the
        table of claims says what the source says, so that PASS speaks for the source.
      table: the history for a reader.
      draw: `draw(history, path)`, the figure.
    """

    name: str
    parser: options.Parser
    measure: Callable[[Run, Dataset, Namespace], History]
    verdicts: Callable[[History], list[Verdict]]
    table: Callable[[History], Table]
    draw: Callable[[History, Path], None]

    def __call__(self, arguments: Sequence[str], progress: Progress | None = None) -> int:
        """The status of the process: 0, or 2 if refused, or 130 if interrupted.

        Args:
          arguments: those of the command line.
          progress: where its bar is to stand beside others.
        """
        return exit_status(lambda: self._run(arguments, progress))

    def _run(self, arguments: Sequence[str], progress: Progress | None) -> None:
        """Measures, or goes on, or shows what is finished: table, verdicts, figure."""
        chosen = options.parse(self.parser, arguments)
        dataset = options.open_data(chosen)
        run = options.open_run(self.name, chosen, dataset, progress)
        history: Any = run.measurements
        if history is None:
            history = self.measure(run, dataset, chosen)
        else:
            console.print("this run is finished already; --restart runs it again")
        # Of a finished run, too: what is kept is what is shown, if the claims changed.
        verdicts = [each.as_dict() for each in self.verdicts(history)]
        run.finish(history, verdicts, cells(self.table(history)))
        self.draw(history, run.figure)
        show(self.table(history), self.verdicts(history), run)


def compare_arms(
    make_arms: Callable[[Dataset, int, int], dict[str, Arm]],
    heading: str,
    line: Callable[[History, int, int], str],
) -> Callable[[Run, Dataset, Namespace], History]:
    """How a study measures that trains its arms side by side, with a line an epoch.

    Args:
      make_arms: `make_arms(dataset, epochs, steps) -> {name: Arm}`, an epoch having so
        many steps.
      heading: shown above the lines.
      line: `line(history, seed, epoch) -> str`, shown after each epoch of all arms.
    """

    def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
        steps = len(dataset.train_labels) // chosen.batch_size
        arms = make_arms(dataset, chosen.epochs, steps)
        console.print(describe(arms, dataset))
        return compare(
            run,
            arms,
            dataset,
            seeds=chosen.seeds,
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            heading=heading,
            line=line,
        )

    return measure


def describe(arms: dict[str, Arm], dataset: Dataset) -> str:
    """The shapes of the data, and how many parameters the arms have."""
    counts: dict[int, list[str]] = {}
    for name, arm in arms.items():
        counts.setdefault(parameter_count(arm.model, dataset), []).append(name)
    lines = [
        f"{dataset.name}: {dataset.train_images.shape} to train, "
        f"{dataset.test_images.shape} to test, {dataset.classes} classes"
    ]
    lines += [f"{count:,} parameters: {', '.join(of)}" for count, of in counts.items()]
    return "\n".join(lines)
