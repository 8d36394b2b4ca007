"""A study: arms that are trained alike, and what is made of what was observed of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import RenderableType

from experiments import options
from experiments.console import console, exit_status
from experiments.data import Dataset
from experiments.models import parameter_count
from experiments.results import Verdict, show
from experiments.training import Arm, History, compare


class Study(NamedTuple):
    """One experiment.

    Attributes:
      name: that of its module.
      parser: its options, with those that all share.
      make_arms: `make_arms(dataset, epochs, steps) -> {name: Arm}`, an epoch having so
        many steps.
      heading: shown above the lines.
      line: `line(history, seed, epoch) -> str`, shown after each epoch of all arms.
      verdicts: the claims, with what the history says of them.
      table: the history for a reader.
      draw: `draw(history, path)`, the figure.
    """

    name: str
    parser: options.Parser
    make_arms: Callable[[Dataset, int, int], dict[str, Arm]]
    heading: str
    line: Callable[[History, int, int], str]
    verdicts: Callable[[History], list[Verdict]]
    table: Callable[[History], RenderableType]
    draw: Callable[[History, Path], None]


def run_study(study: Study, arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused, or 130 if interrupted."""
    return exit_status(lambda: _run(study, arguments))


def _run(study: Study, arguments: Sequence[str]) -> None:
    """Trains, or goes on training, or shows what is finished: table, verdicts, figure."""
    chosen = study.parser.parse_args(arguments)
    dataset = options.open_data(chosen)
    run = options.open_run(study.name, chosen, dataset)
    steps = len(dataset.train_labels) // chosen.batch_size
    arms = study.make_arms(dataset, chosen.epochs, steps)
    console.print(describe(arms, dataset))
    history: Any = run.measurements
    if history is None:
        history = compare(
            run,
            arms,
            dataset,
            seeds=chosen.seeds,
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            heading=study.heading,
            line=study.line,
        )
        run.finish(history, [each.as_dict() for each in study.verdicts(history)])
    else:
        console.print("this run is finished already; --restart trains again")
    study.draw(history, run.figure)
    show(study.table(history), study.verdicts(history), run)


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
