"""The options shared by all experiments, and the data and run that they select."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from experiments.harness import argument_types, data
from experiments.harness.console import Refused
from experiments.harness.runs import Run

Parser = argparse.ArgumentParser
MOST_SEEDS, MOST = 1_000, 1_000_000  # beyond, a run would end for lack of memory or time
FULL = {"seeds": 5, "data": "mnist5k"}
QUICK = {"seeds": 2, "data": "digits"}


def parser(name: str, description: str, **sizes: tuple[int, int]) -> Parser:
    """Returns a parser with the shared options.

    Args:
      name: name of the experiment.
      description: the text at the start of `--help`.
      **sizes: further counts that can be chosen, such as `epochs` or `batch_size`, each
        with its default in a full run and in a quick run.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m experiments {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    full = FULL | {size: default for size, (default, _) in sizes.items()}
    quick = QUICK | {size: default for size, (_, default) in sizes.items()}
    for size in ("seeds", *sizes):
        made.add_argument(
            f"--{size.replace('_', '-')}",
            type=argument_types.count(MOST_SEEDS if size == "seeds" else MOST),
            metavar="N",
            help=f"how many ({full[size]})",
        )
    made.add_argument(
        "--quick",
        action="store_true",
        help="a small run on digits, as a check that it works; its verdicts say little",
    )
    source = made.add_mutually_exclusive_group()
    source.add_argument("--data", choices=data.PACKAGED, help="packaged data (mnist5k)")
    source.add_argument(
        "--data-dir",
        type=argument_types.path,
        metavar="DIR",
        help="folder with the four files of a data set in MNIST's IDX format, raw or .gz",
    )
    add_folder(made, name, "the result, the figure and, until then, the state to resume")
    made.set_defaults(defaults={False: full, True: quick})
    return made


def add_folder(made: Parser, name: str, holds: str) -> None:
    """Adds the options for the folder of a run; `holds` says what is stored there."""
    made.add_argument(
        "--out",
        type=argument_types.path,
        metavar="DIR",
        default=Path("results") / name,
        help=f"folder for {holds} (results/{name}); an interrupted run resumes from it",
    )
    made.add_argument(
        "--restart", action="store_true", help="discard any earlier run in --out"
    )


def parse(made: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the options; those not given default to a full run's, or a quick run's."""
    chosen = made.parse_args(arguments)
    for name, value in chosen.defaults[chosen.quick].items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def open_data(options: argparse.Namespace) -> data.Dataset:
    """Loads the chosen data; refuses a batch size that it cannot provide."""
    dataset = data.load(options.data, options.data_dir)
    available = len(dataset.train_labels)
    size = getattr(options, "batch_size", 2)
    if not 2 <= size <= available:
        raise Refused(
            f"--batch-size {size}: must be at least 2 (one sample has no variance) and at "
            f"most {available}, the number of training samples."
        )
    return dataset


def open_run(
    name: str,
    options: argparse.Namespace,
    dataset: data.Dataset,
    progress: Progress | None = None,
) -> Run:
    """Opens the chosen folder, for a run with these options on this data."""
    sizes = [each for each in options.defaults[options.quick] if each != "data"]
    settings: dict[str, Any] = {
        "experiment": name,
        "quick": options.quick,
        **{size: getattr(options, size) for size in sizes},
        "data": dataset.describe(),
    }
    return Run(options.out, settings, restart=options.restart, progress=progress)
