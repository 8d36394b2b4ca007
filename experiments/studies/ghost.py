"""Ghost batches give a large batch the better test accuracy of small ones.

After Hoffer et al. 2017 (arXiv:1705.08741). Three layers of 100 relu units with batch norm
are trained by SGD with batches of 496 samples, normalised as a whole or in ghost batches
of 31 or 16; and with batches of 32. All arms start at the same weights and take the same
number of updates at the same rate. The gap is training minus test accuracy.
"""

from argparse import Namespace
from pathlib import Path

import jax
import numpy as np
import optax
from rich.table import Table

import jaxnorm.linen as jn
from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import Verdict, above_zero, make_table, mean_sd
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm, accuracy
from experiments.models import Deep, Norm
from experiments.models.deep import ESTIMATOR

NAME = "ghost"
# The number of samples per batch and per ghost batch, by arm.
ARMS = {
    "batch_norm": (496, None),
    "ghosts of 31": (496, 31),
    "ghosts of 16": (496, 16),
    "batch of 32": (32, None),
}
LABELS = dict(zip(ARMS, ("496, whole", "496 in 31s", "496 in 16s", "32"), strict=True))
ROUNDS = {False: 20, True: 4}  # by whether the run is quick
STEPS = 25  # per round
RATE = 0.1


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracy on training and test data, with running statistics."""

    def of(images, labels):
        return accuracy(model.apply(variables, images, train=False), labels)

    return {
        "accuracy": of(data.test_images, data.test_labels),
        "train": of(data.train_images, data.train_labels),
    }


def in_ghosts(size: int | None) -> Norm:
    """Returns batch norm with ghost batches of this size in training."""
    return lambda train: jn.BatchNorm(train=train, estimator=ESTIMATOR, ghost_size=size)


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each arm."""
    trials = {}
    for name, (size, ghost) in ARMS.items():
        model = Deep(classes=dataset.classes, norm=in_ghosts(ghost))
        batches = shuffled(rounds=ROUNDS[chosen.quick], steps=STEPS, size=size)
        trials[name] = Trial(Arm(model, optax.sgd(RATE), observe), batches)

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def accuracies(history: History, arm: str) -> np.ndarray:
    """Returns test accuracies in percent, (seeds, rounds); NaN once training diverged."""
    return 100 * np.asarray(history[arm]["accuracy"], float)


def gaps(history: History, arm: str) -> np.ndarray:
    """Returns training minus test accuracy in points, (seeds, rounds)."""
    return 100 * np.asarray(history[arm]["train"], float) - accuracies(history, arm)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown.

    If an arm diverges, its gap is unknown and the claims about it stay open.
    """
    test = {arm: accuracies(history, arm)[:, -1] for arm in ARMS}
    gap = {arm: gaps(history, arm)[:, -1] for arm in ARMS}
    whole = "batch_norm"
    return [
        above_zero(
            "in ghosts of 16, a batch of 496 ends at a better test accuracy than whole",
            (),
            test["ghosts of 16"] - test[whole],
            "points",
        ),
        above_zero(
            "in ghosts of 16, a batch of 496 ends with a smaller gap than whole",
            (),
            gap[whole] - gap["ghosts of 16"],
            "points",
        ),
        above_zero(
            "a batch of 32 ends at a better test accuracy than a whole one of 496",
            (),
            test["batch of 32"] - test[whole],
            "points",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates final test accuracy and generalisation gap."""
    drawn = make_table(
        *("batch", "test accuracy", "training − test"),
        title="at the end, in % and points, mean ± sd over seeds",
    )
    for arm, label in LABELS.items():
        ends = (accuracies(history, arm)[:, -1], gaps(history, arm)[:, -1])
        drawn.add_row(label, *map(mean_sd, ends))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws test accuracy over updates, and the gap of each seed."""
    with plotting.figure(path, rows=1, columns=2, height=3.6) as axes:
        over, each = axes[0]
        for arm, label in LABELS.items():
            values = accuracies(history, arm)
            updates = STEPS * np.arange(1, values.shape[1] + 1)
            plotting.over_seeds(over, updates, values, arm=arm, label=label)
        top = max(np.nan_to_num(accuracies(history, arm)).max() for arm in ARMS)
        over.set(title="Test accuracy", ylabel="%", ylim=(max(0, top - 12), top + 1))
        over.set_xlabel(f"updates ({plotting.seeds(accuracies(history, 'batch_norm'))})")
        over.legend(title="batch", loc="lower right")
        ends = {LABELS[arm]: gaps(history, arm)[:, -1] for arm in ARMS}
        plotting.each_seed(each, ends, {label: arm for arm, label in LABELS.items()})
        each.set(title="Training − test accuracy at the end", xlabel="points")
        each.set_ylabel("batch")


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
