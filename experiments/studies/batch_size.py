"""Batch norm fails in batches of two samples, where group norm does not.

Row 19 of the claims, after Wu & He 2018 (arXiv:1803.08494). Three layers of 100
relu units are trained by SGD with batches of 2 to 128 samples. Every trial sees the same
number of samples in the same order; the rate grows with the batch, up to a limit.
Normalised on its own, a batch of two becomes ±1 in each feature, whatever it was.
So batch norm is also evaluated with recalibrated statistics (arXiv:2105.07576), which are
correct but do not fix that.
"""

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.table import Table

import jaxnorm
import jaxnorm.linen as jn
from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, at_rate, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import (
    Verdict,
    above_zero,
    make_table,
    mean_sd,
    on_every_seed,
)
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm, accuracy, observe_accuracy
from experiments.models import (
    Deep,
    Norm,
    batch_norm,
    batch_renorm,
    group_norm,
    layer_norm,
)

NAME = "batch_size"
SIZES = {False: (2, 4, 8, 16, 32, 128), True: (2, 16, 32)}  # by whether the run is quick
SAMPLES = {False: 16_384, True: 2_048}  # seen by a trial, by whether the run is quick
RATE, LARGEST_RATE = 0.1, 0.3  # for batches of 32, and the upper limit
CALIBRATION = 1_024  # training samples
LABELS = {
    "plain": "none",
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "batch_renorm": "batch renorm",
}


def observe_batch_norm(model, variables, data, *, size: int) -> dict[str, jax.Array]:
    """Returns test accuracy, also recalibrated, and training accuracy in two ways.

    Statistics are recalibrated from batches of the size used in training, here as the
    ghost batches of one large batch.
    """
    ghosts = model.clone(norm=lambda train: jn.BatchNorm(train=train, ghost_size=size))
    images = data.train_images[:CALIBRATION]
    labels = data.train_labels[:CALIBRATION]

    def train(variables, images):
        return ghosts.apply(variables, images, train=True, mutable=["batch_stats"])

    calibrated = jaxnorm.calibrate(train, variables, [images], progress=False)
    in_batches, _ = train(variables, images)
    running = model.apply(variables, images, train=False)
    return observe_accuracy(model, variables, data) | {
        "recalibrated": observe_accuracy(model, calibrated, data)["accuracy"],
        "train, batch": accuracy(in_batches, labels),
        "train, running": accuracy(running, labels),
    }


def rate_of(size: int) -> float:
    """Returns a rate proportional to the batch size, up to a limit."""
    return min(RATE * size / 32, LARGEST_RATE)


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each norm with each size of batch."""
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)

    def make_arm(norm: Norm | None, seen: Callable[..., Any] = observe_accuracy) -> Arm:
        return Arm(Deep(classes=dataset.classes, norm=norm), optimizer, seen)

    of_any_size = {
        "plain": make_arm(None),
        "layer_norm": make_arm(layer_norm),
        "group_norm": make_arm(group_norm),
    }
    trials = {}
    for size in SIZES[chosen.quick]:
        steps = SAMPLES[chosen.quick] // size
        batches = shuffled(rounds=1, steps=steps, size=size)
        of_batch_norm = functools.partial(observe_batch_norm, size=size)
        arms = of_any_size | {
            "batch_norm": make_arm(batch_norm, of_batch_norm),
            "batch_renorm": make_arm(batch_renorm(steps)),
        }
        for name, arm in arms.items():
            trials[trial_name(name, size)] = Trial(arm, batches, at_rate(rate_of(size)))

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def trial_name(norm: str, size: int) -> str:
    """Returns the key of a trial in the history."""
    return f"{norm}, {size}"


def sizes(history: History) -> list[int]:
    """Returns the batch sizes that were run."""
    return [size for size in SIZES[False] if trial_name("plain", size) in history]


def accuracies(history: History, norm: str, seen: str = "accuracy") -> np.ndarray:
    """Returns accuracies in percent, (seeds, sizes); NaN where training diverged."""
    of_sizes = [history[trial_name(norm, size)][seen][:, -1] for size in sizes(history)]
    return 100 * np.stack(of_sizes, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown.

    A claim about a network that diverged stays open.
    """

    def at(size: int, norm: str, seen: str = "accuracy") -> np.ndarray:
        return accuracies(history, norm, seen)[:, sizes(history).index(size)]

    below = at(2, "group_norm") - at(2, "batch_norm")
    below_recalibrated = at(2, "group_norm") - at(2, "batch_norm", "recalibrated")
    apart = {
        size: np.abs(at(size, "batch_norm") - at(size, "group_norm")) for size in (16, 32)
    }
    moved = np.abs(at(2, "group_norm") - at(32, "group_norm"))
    lost = at(2, "batch_norm", "train, batch") - at(2, "batch_norm", "train, running")
    return [
        on_every_seed(
            "in batches of 2, BN ends at least 15 points below GN",
            (19,),
            below,
            below >= 15,
            "points",
        ),
        on_every_seed(
            "in batches of 2, BN by recalibrated statistics is 15 points below GN, too",
            (),
            below_recalibrated,
            below_recalibrated >= 15,
            "points",
        ),
        *(
            on_every_seed(
                f"in batches of {size}, BN and GN end within 2 points",
                (),
                apart[size],
                apart[size] <= 2,
                "points apart",
            )
            for size in apart
        ),
        on_every_seed(
            "GN ends within 2 points in batches of 2 and of 32",
            (),
            moved,
            moved <= 2,
            "points apart",
        ),
        above_zero(
            "trained in batches of 2, BN knows its training data better by the statistics "
            "of batches than by running ones",
            (),
            lost,
            "points",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy for each batch size, and recalibrated batch norm."""
    drawn = make_table(
        *("batch", "none", "BN", "LN", "GN", "BRN", "BN recal."),
        title="test accuracy in %, mean ± sd over seeds; of BN recalibrated, too",
    )
    columns = [accuracies(history, norm) for norm in LABELS]
    columns.append(accuracies(history, "batch_norm", "recalibrated"))
    for place, size in enumerate(sizes(history)):
        drawn.add_row(str(size), *(mean_sd(values[:, place]) for values in columns))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws error over batch size, for all norms and for batch norm in several ways."""
    ways = {
        "train, batch": ("batch statistics", "training data, of the batch"),
        "train, running": ("EMA", "training data, running"),
        "accuracy": ("batch_norm", "test data, running"),
        "recalibrated": ("calibrated", "test data, recalibrated"),
    }
    shown = sizes(history)
    with plotting.figure(path, rows=1, columns=2, height=3.8) as axes:
        left, right = axes[0]
        for norm, label in LABELS.items():
            values = accuracies(history, norm)
            plotting.over_seeds(
                left, shown, 100 - values, arm=norm, label=label, marker="o"
            )
            plotting.diverged(left, shown, values, arm=norm)
        for seen, (colour, label) in ways.items():
            error = 100 - accuracies(history, "batch_norm", seen)
            style = "--" if seen == "recalibrated" else "-"
            line: Any = {"arm": colour, "label": label, "marker": "o", "ls": style}
            plotting.over_seeds(right, shown, error, **line)
        ticks = (5, 10, 20, 50, 100)
        left.set(title="Test error", ylabel="%", yscale="log", ylim=(4, 100))
        left.set(yticks=ticks, yticklabels=ticks)
        right.set(title="Batch norm by statistics", ylabel="error, %", ylim=(0, 100))
        for each in (left, right):
            each.set(xscale="log", xticks=shown, xticklabels=shown)
            each.set_xlabel(f"batch size ({plotting.seeds(accuracies(history, 'plain'))})")
            each.minorticks_off()
            each.legend()


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
