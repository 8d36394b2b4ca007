"""A study: what an experiment measures, its claims, its table and its figure."""

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
      name: the name of its module.
      parser: its options, including the shared ones.
      measure: `measure(run, dataset, chosen) -> history`, made resumable by `run`, so
        that nothing is computed twice.
      verdicts: the claims, with what the history says about them. A claim that names rows
        of the table of claims agrees with the source, so that PASS supports the source.
      table: presents the history to a reader.
      draw: `draw(history, path)`, draws the figure.
    """

    name: str
    parser: options.Parser
    measure: Callable[[Run, Dataset, Namespace], History]
    verdicts: Callable[[History], list[Verdict]]
    table: Callable[[History], Table]
    draw: Callable[[History, Path], None]

    def __call__(self, arguments: Sequence[str], progress: Progress | None = None) -> int:
        """Runs the study; returns the exit status: 0, 2 if refused, 130 if interrupted.

        Args:
          arguments: the command-line arguments.
          progress: a display to add its bar to.
        """
        return exit_status(lambda: self._run(arguments, progress))

    def _run(self, arguments: Sequence[str], progress: Progress | None) -> None:
        """Measures, resumes, or shows a finished run: table, verdicts, figure."""
        chosen = options.parse(self.parser, arguments)
        dataset = options.open_data(chosen)
        run = options.open_run(self.name, chosen, dataset, progress)
        history: Any = run.measurements
        if history is None:
            history = self.measure(run, dataset, chosen)
        else:
            console.print("this run is finished already; --restart runs it again")
        # Also for a finished run: if the claims changed, stored and shown must agree.
        verdicts = [each.as_dict() for each in self.verdicts(history)]
        run.finish(history, verdicts, cells(self.table(history)))
        self.draw(history, run.figure)
        show(self.table(history), self.verdicts(history), run)


def compare_arms(
    make_arms: Callable[[Dataset, int, int], dict[str, Arm]],
    heading: str,
    line: Callable[[History, int, int], str],
) -> Callable[[Run, Dataset, Namespace], History]:
    """Returns the `measure` of a study that trains its arms side by side.

    Args:
      make_arms: `make_arms(dataset, epochs, steps) -> {name: Arm}`, with the number of
        steps per epoch.
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
    """Describes the shapes of the data and the parameter counts of the arms."""
    counts: dict[int, list[str]] = {}
    for name, arm in arms.items():
        counts.setdefault(parameter_count(arm.model, dataset), []).append(name)
    lines = [
        f"{dataset.name}: {dataset.train_images.shape} to train, "
        f"{dataset.test_images.shape} to test, {dataset.classes} classes"
    ]
    lines += [f"{count:,} parameters: {', '.join(of)}" for count, of in counts.items()]
    return "\n".join(lines)
