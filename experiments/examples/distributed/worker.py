"""One of the processes: it meets the others, trains, and reports how it ended."""

import argparse
import os
import re
import sys
import traceback
from typing import Any

import jax
import numpy as np

from experiments.examples.distributed.meeting import agree, connect
from experiments.examples.distributed.processes import LOST, end_with_parent
from experiments.examples.distributed.training import Trained, train
from experiments.harness import options
from experiments.harness.console import Refused, console, exit_status
from experiments.harness.data import Dataset
from experiments.harness.runs import Run

NAME = "distributed"
SHOWN = 64  # values per parameter in the result


def be_one(chosen: argparse.Namespace) -> None:
    """Runs as a child of `command.launch`, and ends this process."""
    end_with_parent()
    # gloo writes to stdout from C++: send that to the log, and only our output to the user.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        status = exit_status(lambda: work(chosen))
    except jax.errors.JaxRuntimeError as error:
        status = _lost(chosen, error)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # sys.exit would wait for the others, which wait for this process


def _lost(chosen: argparse.Namespace, error: Exception) -> int:
    """Returns the status after a runtime error, most often a lost connection."""
    told = str(error).splitlines()[0].rpartition("computation: ")[2]
    if not re.search("gloo|nccl|rccl|connection|coordination", told, re.IGNORECASE):
        traceback.print_exception(error)
        return 1
    who = f"process {chosen.process} of {chosen.processes}"
    print(f"error: {who} lost another, and was ended ({told}).", file=sys.stderr)
    return LOST


def work(chosen: argparse.Namespace) -> None:
    """Meets the others, trains, and writes the result if this is process 0."""
    console.quiet = chosen.process != 0
    dataset = options.open_data(chosen)
    connect(chosen)
    check_split(chosen.batch_size, jax.device_count())
    plan = {
        "epochs": chosen.epochs,
        "steps": steps_of_an_epoch(chosen, dataset),
        "batch_size": chosen.batch_size,
        "seed": chosen.seed,
    }
    settings = {
        "experiment": NAME,
        "processes": jax.process_count(),
        "devices": jax.device_count(),
        **plan,
        "data": dataset.describe(),
    }
    agree(settings)
    first = jax.process_index() == 0
    run = Run(chosen.out, settings, restart=chosen.restart) if first else None
    console.print(
        f"{dataset.name}: batches of {chosen.batch_size} over {jax.device_count()} devices "
        f"of {jax.process_count()} process{'es' * (jax.process_count() > 1)}"
    )
    measured = measurements(train(dataset, **plan))
    if run:
        run.finish(measured, [])
        console.print(f"numbers: {run.result}")
    jax.distributed.shutdown()


def steps_of_an_epoch(chosen: argparse.Namespace, dataset: Dataset) -> int:
    """Returns the number of whole batches, or --steps if that is fewer."""
    available = len(dataset.train_labels) // chosen.batch_size
    return min(chosen.steps or available, available)


def check_split(size: int, devices: int) -> None:
    """Refuses a batch size that does not divide evenly among the devices."""
    if size % devices:
        raise Refused(
            f"--batch-size {size}: must be a multiple of {devices}, the number of devices "
            "that share a batch."
        )


def measurements(trained: Trained) -> dict[str, Any]:
    """Returns the contents of the result, by which two runs can be compared."""
    return {
        "loss": trained.losses,
        "accuracy": trained.accuracies,
        "statistics": jax.tree.map(np.asarray, trained.state.statistics),
        "parameters": jax.tree.map(_some, trained.state.params),
    }


def _some(parameter: jax.Array) -> np.ndarray:
    """Returns evenly spaced values; all of them would take megabytes."""
    return np.ravel(parameter)[:: max(1, parameter.size // SHOWN)]
