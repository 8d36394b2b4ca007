"""Batch norm fails on batches of one class; layer norm and batch renorm cope better.

After Ioffe 2017, section 4.3 (arXiv:1702.03275). Three layers of 100 relu units are trained
by SGD with batches of 40 samples from 1, 2, 5 or 10 of the classes; the classes take turns.
The test data are evaluated with running statistics, with the statistics of test batches
composed as in training, and with the statistics of the whole test data.
"""

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

from experiments.harness import options, plotting
from experiments.harness.comparing import History, Trial, sweep
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
from experiments.models import Deep, batch_norm, batch_renorm, layer_norm

NAME = "non_iid"
CLASSES = {False: (1, 2, 5, 10), True: (1, 10)}  # per batch, by whether the run is quick
BATCH = 40
STEPS = {False: 2_000, True: 300}  # by whether the run is quick
RATE = 0.02
TEST_BATCHES = 50
LABELS = {
    "plain": "none",
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "batch_renorm": "batch renorm",
}
WAYS = {
    "accuracy": ("EMA", "running"),
    "alike": ("batch statistics", "of batches as in training"),
    "whole": ("calibrated", "of the whole test data"),
}


def batches_of_classes(
    rng: np.random.Generator, labels: np.ndarray, classes: int, steps: int
) -> np.ndarray:
    """Returns sample indices, (steps, BATCH), with `classes` equally frequent classes each.

    The classes take turns, reshuffled for every pass; samples of a class are drawn.
    """
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = -(-steps * classes // len(of_class))
    order = np.concatenate([rng.permutation(len(of_class)) for _ in range(turns)])
    drawn = [
        rng.choice(of_class[label], BATCH // classes) for label in order[: steps * classes]
    ]
    return np.stack(drawn).reshape(steps, BATCH)


def observe_batches(model, variables, data, *, batches) -> dict[str, jax.Array]:
    """Returns test accuracy, also with the statistics of these batches and of all data."""

    def train(images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    alike = jax.vmap(train)(data.test_images[batches])
    return observe_accuracy(model, variables, data) | {
        "alike": accuracy(alike, data.test_labels[batches]),
        "whole": accuracy(train(data.test_images), data.test_labels),
    }


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each norm with each number of classes per batch."""
    steps = STEPS[chosen.quick]

    def make_arm(norm: Any, seen: Callable[..., Any] = observe_accuracy) -> Arm:
        return Arm(Deep(classes=dataset.classes, norm=norm), optax.sgd(RATE), seen)

    of_any_classes = {"plain": make_arm(None), "layer_norm": make_arm(layer_norm)}
    trials = {}
    for classes in CLASSES[chosen.quick]:

        def batches(
            rng: np.random.Generator, data: Dataset, classes: int = classes
        ) -> np.ndarray:
            return batches_of_classes(rng, data.train_labels, classes, steps)[None]

        test_batches = batches_of_classes(
            np.random.default_rng(0), dataset.test_labels, classes, TEST_BATCHES
        )
        seen = functools.partial(observe_batches, batches=jnp.asarray(test_batches))
        arms = of_any_classes | {
            "batch_norm": make_arm(batch_norm, seen),
            "batch_renorm": make_arm(batch_renorm(steps), seen),
        }
        for name, arm in arms.items():
            trials[trial_name(name, classes)] = Trial(arm, batches)

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def trial_name(norm: str, classes: int) -> str:
    """Returns the key of a trial in the history."""
    return f"{norm}, {classes}"


def numbers(history: History) -> list[int]:
    """Returns the numbers of classes per batch that were run."""
    return [each for each in CLASSES[False] if trial_name("plain", each) in history]


def accuracies(history: History, norm: str, seen: str = "accuracy") -> np.ndarray:
    """Returns accuracies in percent, (seeds, numbers of classes); NaN where diverged."""
    of_each = [
        history[trial_name(norm, classes)][seen][:, -1] for classes in numbers(history)
    ]
    return 100 * np.stack(of_each, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown.

    Diverged training counts as 0 %.
    """
    one = {norm: np.nan_to_num(accuracies(history, norm)[:, 0]) for norm in LABELS}
    alike = np.nan_to_num(accuracies(history, "batch_norm", "alike")[:, 0])
    return [
        on_every_seed(
            "on batches of one class, BN ends at 30 % or less",
            (),
            one["batch_norm"],
            one["batch_norm"] <= 30,
            "%",
        ),
        on_every_seed(
            "on batches of one class, LN ends at 85 % or more",
            (),
            one["layer_norm"],
            one["layer_norm"] >= 85,
            "%",
        ),
        above_zero(
            "on batches of one class, batch renorm ends above BN",
            (),
            one["batch_renorm"] - one["batch_norm"],
            "points",
        ),
        above_zero(
            "on batches of one class, BN is better by the statistics of test batches that "
            "are made alike than by running ones",
            (),
            alike - one["batch_norm"],
            "points",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy for each number of classes per batch."""
    drawn = make_table(
        *("classes", "none", "BN", "LN", "BRN"),
        *("BN, alike", "BRN, alike"),
        title="test accuracy in %, mean ± sd over seeds: by running statistics, and by\n"
        "those of test batches made alike",
    )
    columns = [accuracies(history, norm) for norm in LABELS]
    columns += [
        accuracies(history, norm, "alike") for norm in ("batch_norm", "batch_renorm")
    ]
    for place, classes in enumerate(numbers(history)):
        drawn.add_row(str(classes), *(mean_sd(values[:, place]) for values in columns))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws accuracy over the classes per batch, for all norms and BN in several ways."""
    number = plotting.seeds(accuracies(history, "plain"))
    shown = numbers(history)
    with plotting.figure(path, rows=1, columns=2, height=3.8) as axes:
        left, right = axes[0]
        for norm, label in LABELS.items():
            values = accuracies(history, norm)
            plotting.over_seeds(left, shown, values, arm=norm, label=label, marker="o")
            plotting.diverged(left, shown, values, arm=norm)
        for seen, (colour, label) in WAYS.items():
            values = accuracies(history, "batch_norm", seen)
            plotting.over_seeds(right, shown, values, arm=colour, label=label, marker="o")
        for limit in (30, 85):
            plotting.threshold(left, y=limit)
        left.set(title="Test accuracy", ylabel="%")
        right.set(title="Batch norm by statistics", ylabel="test accuracy, %")
        for each in (left, right):
            each.set(xscale="log", ylim=(0, 100), xticks=shown, xticklabels=shown)
            each.set_xlabel(f"classes in a batch ({number})")
            each.minorticks_off()
            each.legend(loc="center right")


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
