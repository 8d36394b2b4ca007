"""Batch norm regularises a little, and dropout more: training against test accuracy.

Rows 15, 16, 21, 30 and 53 of the claims. Three layers of 100 relu units are trained by SGD
on the first 500 to 4,000 training samples: plain, with batch norm, with dropout, with both,
or with weight decay (L2); and with batch norm in other batch sizes, where smaller batches
are noisier (arXiv:1809.00846). All arms take the same number of updates. The network with
dropout also predicts many times with dropout left on, which shows for each sample how far
the answers differ, and whether their mean is right.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
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
from experiments.harness.training import Arm, accuracy
from experiments.models import Deep, batch_norm
from experiments.studies.regularisation.mc_dropout import describe_draws, draw_predictions

NAME = "regularisation"
SAMPLES = {False: (500, 1_000, 2_000, 4_000), True: (500, 1_000)}  # by whether it is quick
STEPS = {False: 1_200, True: 200}
RATE, DROPPED, DECAY = 0.1, 0.4, 2e-3
BATCH = 64
DRAWS = 32  # per prediction with dropout left on
# By the names in tables and figures, with the batch size of each.
ARMS = {
    "plain": BATCH,
    "batch_norm": BATCH,
    "dropout": BATCH,
    "batch_norm, dropout": BATCH,
    "L2": BATCH,
    "batch_norm, batch of 16": 16,
    "batch_norm, batch of 256": 256,
}
LABELS = {
    "plain": "none",
    "batch_norm": "BN",
    "dropout": "dropout",
    "batch_norm, dropout": "BN, dropout",
    "L2": "L2",
}
BATCHES = {16: "batch_norm, batch of 16", 64: "batch_norm", 256: "batch_norm, batch of 256"}


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracy on the test data, and on each number of first training samples."""
    right = (
        jnp.argmax(model.apply(variables, data.train_images, train=False), axis=-1)
        == data.train_labels
    )
    logits = model.apply(variables, data.test_images, train=False)
    return {
        "accuracy": accuracy(logits, data.test_labels),
        "train": jnp.stack([jnp.mean(right[:samples]) for samples in SAMPLES[False]]),
    }


def observe_draws(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracies, and how predictions with dropout left on are distributed."""
    draws = draw_predictions(model, variables, data.test_images, DRAWS)
    found = describe_draws(draws, data.test_labels)
    return observe(model, variables, data) | found


def make_arms(classes: int) -> dict[str, Arm]:
    """Returns an arm for each way to regularise, the same for any number of samples."""
    sgd = optax.sgd(RATE)
    decayed = optax.chain(optax.add_decayed_weights(DECAY), sgd)
    norm = Arm(Deep(classes=classes, norm=batch_norm), sgd, observe)
    return {
        "plain": Arm(Deep(classes=classes), sgd, observe),
        "dropout": Arm(Deep(classes=classes, dropout=DROPPED), sgd, observe_draws),
        "batch_norm, dropout": Arm(
            Deep(classes=classes, norm=batch_norm, dropout=DROPPED), sgd, observe
        ),
        "L2": Arm(Deep(classes=classes), decayed, observe),
        **dict.fromkeys(BATCHES.values(), norm),
    }


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each arm on each number of samples."""
    arms = make_arms(dataset.classes)
    trials = {}
    for name, size in ARMS.items():
        for samples in SAMPLES[chosen.quick]:
            if samples > len(dataset.train_labels):
                continue
            batches = shuffled(1, STEPS[chosen.quick], size, samples)
            trials[trial_name(name, samples)] = Trial(arms[name], batches)

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def trial_name(arm: str, samples: int) -> str:
    """Returns the key of a trial in the history."""
    return f"{arm}, {samples}"


def sizes(history: History) -> list[int]:
    """Returns the sizes of the training data that were run."""
    return [each for each in SAMPLES[False] if trial_name("plain", each) in history]


def accuracies(history: History, arm: str) -> np.ndarray:
    """Returns test accuracies in percent, (seeds, sizes of the training data)."""
    found = [history[trial_name(arm, each)]["accuracy"][:, -1] for each in sizes(history)]
    return 100 * np.stack(found, axis=1)


def gaps(history: History, arm: str) -> np.ndarray:
    """Returns training minus test accuracy in points, (seeds, sizes)."""
    trained = [
        history[trial_name(arm, each)]["train"][:, -1, place]
        for place, each in enumerate(sizes(history))
    ]
    return 100 * np.stack(trained, axis=1) - accuracies(history, arm)


def spreads(history: History, seen: str) -> np.ndarray:
    """Returns a statistic of the draws with dropout left on, (seeds, sizes)."""
    found = [history[trial_name("dropout", each)][seen][:, -1] for each in sizes(history)]
    return np.stack(found, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown.

    All claims are about means over the sizes of the training data. If an arm diverges, its
    gap is unknown and the claims about it stay open.
    """
    gap = {arm: gaps(history, arm).mean(axis=1) for arm in ARMS}
    test = {arm: accuracies(history, arm).mean(axis=1) for arm in ARMS}
    both = "batch_norm, dropout"
    left_out = {arm: test["batch_norm"] - test[arm] for arm in ("dropout", "L2")}
    spread = 100 * (spreads(history, "wrong") - spreads(history, "right")).mean(axis=1)

    def smaller(claim: str, rows: tuple[int, ...], arm: str, other: str) -> Verdict:
        return above_zero(claim, rows, gap[other] - gap[arm], "points")

    return [
        smaller("dropout has a smaller gap than none", (), "dropout", "plain"),
        smaller("BN has a smaller gap than none", (15, 30), "batch_norm", "plain"),
        smaller("dropout has a smaller gap than BN", (53,), "dropout", "batch_norm"),
        smaller("BN + dropout has a smaller gap than BN", (53,), both, "batch_norm"),
        smaller("BN + dropout has a smaller gap than dropout", (), both, "dropout"),
        smaller(
            "at equal updates, BN has a smaller gap in batches of 16 than of 256",
            (),
            BATCHES[16],
            BATCHES[256],
        ),
        above_zero(
            "BN + dropout tests better than BN",
            (53,),
            test[both] - test["batch_norm"],
            "points",
        ),
        *(
            on_every_seed(
                f"{arm} can be left out: BN without it tests no worse than it without BN",
                (16,),
                found,
                found >= 0,
                "points",
            )
            for arm, found in left_out.items()
        ),
        above_zero(
            "left on, dropout spreads answers further where they are wrong",
            (21,),
            spread,
            "points of probability",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy and gap for each size of the training data."""
    drawn = make_table(
        *("arm", *(f"{each:,}" for each in sizes(history))),
        title="training − test accuracy in points (test accuracy in %), by the number of\n"
        "training samples; mean ± sd over seeds",
    )
    for arm in ARMS:
        pairs = zip(gaps(history, arm).T, accuracies(history, arm).T, strict=True)
        name = LABELS.get(arm, arm.replace("batch_norm", "BN"))
        drawn.add_row(name, *(f"{mean_sd(gap)} ({mean_sd(test)})" for gap, test in pairs))
    left_on = 100 * spreads(history, "drawn").T
    drawn.add_row("dropout left on", *(f"({mean_sd(each)})" for each in left_on))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws gap and test accuracy by size of the data, BN's gap by batch size, spreads."""
    number = sizes(history)
    batches = [gaps(history, arm).mean(axis=1) for arm in BATCHES.values()]
    with plotting.figure(path, rows=2, columns=2, height=2.6) as axes:
        (gap, test), (batch, left_on) = axes
        for arm, label in LABELS.items():
            for drawn, of in ((gap, gaps), (test, accuracies)):
                line: Any = {"arm": arm, "label": label, "marker": "o", "ms": 4}
                plotting.over_seeds(drawn, number, of(history, arm), **line)
        for seen, colour in (("right", "layer_norm"), ("wrong", "plain")):
            line = {"arm": colour, "label": f"{seen} answers", "marker": "o", "ms": 4}
            plotting.over_seeds(left_on, number, spreads(history, seen), **line)
        batches = np.stack(batches, axis=1)
        plotting.over_seeds(
            batch, [*BATCHES], batches, arm="batch_norm", label="BN", marker="o"
        )
        gap.set(title="Training − test accuracy", ylabel="points")
        test.set(title="Test accuracy", ylabel="%")
        batch.set(title="Training − test accuracy of BN", ylabel="points, mean")
        left_on.set(title="Dropout left on", ylabel="sd of probability")
        left_on.set_ylim(bottom=0)
        for each in (gap, test, left_on):
            each.set(xscale="log", xticks=number, xticklabels=number)
            each.set_xlabel(f"training samples ({plotting.seeds(batches)})")
        batch.set(xscale="log", xticks=[*BATCHES], xticklabels=[*BATCHES])
        batch.set_xlabel(f"batch size ({plotting.seeds(batches)})")
        for each in axes.flat:
            each.minorticks_off()
        gap.legend(fontsize=9)
        left_on.legend(fontsize=9)


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
