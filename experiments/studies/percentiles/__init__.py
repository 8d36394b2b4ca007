"""Batch norm steadies the inputs of each sigmoid: their percentiles over training.

Rows 2, 12, 13, 24–26, 34 and 35 of the claims. After figure 1 of Ioffe & Szegedy (arXiv
1502.03167): digits in black and white, three layers of 100 sigmoids, plain SGD on batches
of 60 for 6000 steps, weights from N(0, σ²). Besides the networks with and without batch
norm there is one without it on standardised images: only its first input is normalised.
At a rate of .1 all arms train from σ = .1. At .5, in a trial with one seed, the plain
network also reached 75 % from σ = .01, where it stays at chance with .1.

The drift of a layer is computed from the percentiles of single sigmoids on the test images:
the range of the median over training, divided by the mean over training of the band from
the 15th to the 85th percentile; averaged over ten sigmoids. No claim about drift is made
for σ = .01: there the plain networks give nearly the same inputs for all images, and the
band has almost no width. A sigmoid counts as saturated at |z| > 4.
"""

from argparse import Namespace
from pathlib import Path

import flax.linen as nn
import numpy as np
import optax
from rich.table import Table

import jaxnorm
from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import make_table, mean_sd
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm
from experiments.models import Deep, batch_norm
from experiments.studies.initialisation import at_scale
from experiments.studies.percentiles.claims import (
    ARMS,
    EARLY,
    EVERY,
    FAST,
    INPUT,
    SCALES,
    accuracies,
    drifts,
    late_ends,
    trial_name,
    verdicts,
)
from experiments.studies.percentiles.inputs import ENDS, observe, summed_up

NAME = "percentiles"
NORMS = {"plain": None, "batch_norm": batch_norm}
LABELS = {"plain": "plain", INPUT: "input only", "batch_norm": "batch norm"}
LINES = {"plain": "-", INPUT: "--", "batch_norm": "-"}  # two coincide at chance
WIDTHS = (100,) * 3
RATE = 0.1
ROUNDS = {False: 60, True: 10}  # by whether the run is quick


def binarised(dataset: Dataset) -> Dataset:
    """Returns the data with images in black and white."""
    train, test = (
        (images > 0.5).astype(np.float32)
        for images in (dataset.train_images, dataset.test_images)
    )
    return dataset._replace(train_images=train, test_images=test)


def standardised(dataset: Dataset) -> Dataset:
    """Standardises all images by the moments of the training images."""
    summary = jaxnorm.fit([dataset.train_images], progress=False)
    train, test = (
        np.asarray(jaxnorm.standardize(images, summary))
        for images in (dataset.train_images, dataset.test_images)
    )
    return dataset._replace(train_images=train, test_images=test)


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each arm from each scale, and summarises its percentiles."""
    batches = shuffled(rounds=ROUNDS[chosen.quick], steps=EVERY, size=60)
    standard = nn.initializers.normal(1.0)

    def trials(arm: str, norm: str) -> dict[str, Trial]:
        model = Deep(
            *(WIDTHS, dataset.classes, NORMS[norm]),
            activation=nn.sigmoid,
            kernel_init=standard,
        )
        trained = Arm(model, optax.sgd(RATE), observe)
        return {
            trial_name(arm, scale): Trial(trained, batches, at_scale(scale))
            for scale in SCALES
        }

    images = binarised(dataset)
    both = trials("plain", "plain") | trials("batch_norm", "batch_norm")
    history = sweep(run, both, images, seeds=chosen.seeds)
    rest = trials(INPUT, "plain")
    history |= sweep(run, rest, standardised(images), seeds=chosen.seeds)
    return {name: summed_up(found) for name, found in history.items()}


TITLE = """\
test accuracy in %, mean ± sd over seeds; by layer, the means of
the drift in widths of the band, and of the saturated share in % late in training"""


def table(history: History) -> Table:
    """Tabulates accuracy, and the drift and saturated share of each layer."""
    rounds = next(iter(history.values()))["accuracy"].shape[1]
    steps = (EARLY, rounds * EVERY)
    drawn = make_table(
        "σ",
        "arm",
        *(f"step {step}" for step in steps),
        "drift",
        "saturated",
        title=TITLE,
    )
    for scale in SCALES:
        for arm in ARMS:
            values = accuracies(history, arm, scale)
            drawn.add_row(
                f"{scale:g}",
                LABELS[arm],
                *(mean_sd(values[:, step // EVERY - 1]) for step in steps),
                _by_layer(drifts(history, arm), 2) if scale == SCALES[-1] else "–",
                _by_layer(late_ends(history, arm, scale), 1),
            )
    return drawn


def _by_layer(values: np.ndarray, digits: int) -> str:
    return " ".join(f"{each:.{digits}f}" for each in values.mean(0))


def draw(history: History, path: Path) -> None:
    """Draws accuracy, the bands of one sigmoid, and drift and saturation by layer."""
    with plotting.figure(path, rows=3, columns=2, height=2.8) as axes:
        for drawn, scale in zip(axes[0], SCALES, strict=True):
            _draw_accuracy(drawn, history, scale)
        axes[0, 0].legend(loc="center right")
        arms = ("plain", "batch_norm")
        for drawn, arm in zip(axes[1], arms, strict=True):
            _draw_bands(drawn, history, arm)
        bounds = [each.get_ylim() for each in axes[1]]
        for drawn in axes[1]:
            drawn.set_ylim(min(low for low, _ in bounds), max(high for _, high in bounds))
        layers = range(1, len(WIDTHS) + 1)
        for drawn, of in zip(axes[2], (drifts, late_ends), strict=True):
            for arm in ARMS:
                shown = {"arm": arm, "label": LABELS[arm], "marker": "o", "ls": LINES[arm]}
                plotting.over_seeds(drawn, layers, of(history, arm), **shown)
            drawn.set_xlabel(f"layer ({_number(history)})")
            drawn.set(xticks=layers, ylim=(0, None))
        axes[2, 0].set(title="Drift of the inputs", ylabel="widths of the band")
        axes[2, 1].set(title=f"Saturated late: |z| > {ENDS:g}", ylabel="% of inputs")


def _number(history: History) -> str:
    return plotting.seeds(accuracies(history, "plain", SCALES[0]))


def _draw_accuracy(drawn, history: History, scale: float) -> None:
    for arm in ARMS:
        values = accuracies(history, arm, scale)
        step = EVERY * np.arange(1, values.shape[1] + 1)
        plotting.over_seeds(drawn, step, values, arm=arm, label=LABELS[arm], ls=LINES[arm])
    plotting.threshold(drawn, y=FAST, x=EARLY)
    drawn.set(title=f"Test accuracy, σ = {scale:g}", ylabel="%", ylim=(0, 100))
    drawn.set_xlabel(f"step ({_number(history)})")


def _draw_bands(drawn, history: History, arm: str) -> None:
    """Draws the band of the last layer's first sigmoid, for the first seed."""
    bands = history[trial_name(arm, SCALES[-1])]["bands"][0, :, -1]
    step = EVERY * np.arange(1, len(bands) + 1)
    colour = plotting.COLOURS[arm]
    low, middle, high = bands.T
    drawn.plot(step, middle, color=colour)
    drawn.fill_between(step, low, high, color=colour, alpha=0.2, lw=0)
    drawn.set(title=f"Input in layer 3, {LABELS[arm]}", xlabel="step (one seed)")
    drawn.set_ylabel("15, 50, 85th percentile")


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
