"""The options that all experiments share, and what they open."""

import argparse
from pathlib import Path
from typing import Any

from experiments import data
from experiments.console import Refused
from experiments.runs import Run

Parser = argparse.ArgumentParser


def parser(name: str, description: str, *, epochs: int, batch_size: int) -> Parser:
    """A parser with the shared options and these defaults."""
    made = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--seeds", type=_positive, default=5, help="how many (5)")
    made.add_argument(
        "--epochs", type=_positive, default=epochs, help=f"of a seed and arm ({epochs})"
    )
    made.add_argument(
        "--batch-size", type=_positive, default=batch_size, help=f"samples ({batch_size})"
    )
    source = made.add_mutually_exclusive_group()
    source.add_argument(
        "--data", choices=data.PACKAGED, default="mnist5k", help="packaged data (mnist5k)"
    )
    source.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the four files of a data set in MNIST's IDX format, raw or .gz",
    )
    add_folder(made, name, "the result, the figure and, until then, the checkpoint")
    return made


def add_folder(made: Parser, name: str, holds: str) -> None:
    """The options for the folder of a run, which holds that."""
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("results") / name,
        help=f"for {holds} (results/{name}); a run stopped half way goes on from there",
    )
    made.add_argument(
        "--restart", action="store_true", help="throw away what a run left in --out"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def open_data(options: argparse.Namespace) -> data.Dataset:
    """The data chosen, refused if it is smaller than a batch."""
    dataset = data.load(options.data, options.data_dir)
    size, available = options.batch_size, len(dataset.train_labels)
    if not 2 <= size <= available:
        raise Refused(
            f"--batch-size {size}: a batch has from 2 samples (one has no variance) to the "
            f"{available} of the training data."
        )
    return dataset


def open_run(name: str, options: argparse.Namespace, dataset: data.Dataset) -> Run:
    """The folder chosen, for a run with these options on this data."""
    settings: dict[str, Any] = {
        "experiment": name,
        "seeds": options.seeds,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "data": dataset.describe(),
    }
    return Run(options.out, settings, restart=options.restart)
