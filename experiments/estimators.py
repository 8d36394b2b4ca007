"""How soon evaluation is right: the seed network's accuracy by each estimator.

Rows 10, 20, 58 and 60–62 of the claims. The network of the source article is trained as
the main job trains it. Every arm sees the same batches from the same weights, and training
does not read the running statistics: so all arms are one network, and differ in nothing
but the statistics by which it is evaluated.
"""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.box
from rich.table import Table

import jaxnorm
from experiments import options, plotting
from experiments.data import Dataset
from experiments.models import SeedNetwork
from experiments.results import Verdict, above_zero, mean_sd, on_every_seed
from experiments.seed_network import schedule
from experiments.study import Study, compare_arms
from experiments.comparing import History
from experiments.training import Arm, accuracy

NAME = "estimators"
DECAY = 0.99  # the source's
# By their names in tables and figures.
ESTIMATORS = {
    "EMA": jaxnorm.ema(DECAY),
    "EMA, debiased": jaxnorm.ema(DECAY, debias=True),
    "EMA, warmed up": jaxnorm.ema(DECAY, warmup=True),
    "EMA, both": jaxnorm.ema(DECAY, debias=True, warmup=True),
    "cumulative": jaxnorm.cumulative(),
    "population": jaxnorm.population(),
}
CALIBRATED, BATCH = "calibrated", "test batch"
CALIBRATION_BATCHES = 4


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Accuracy by the running statistics."""
    logits = model.apply(variables, data.test_images, train=False)
    return {"running": accuracy(logits, data.test_labels)}


def observe_others(model, variables, data, *, batches) -> dict[str, jax.Array]:
    """That, and by statistics calibrated on the training data, and of the test batch."""

    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    calibrated = jaxnorm.calibrate(train, variables, batches, progress=False)
    logits, _ = train(variables, data.test_images)
    return observe(model, variables, data) | {
        CALIBRATED: observe(model, calibrated, data)["running"],
        BATCH: accuracy(logits, data.test_labels),
    }


def make_arms(dataset: Dataset, epochs: int, steps: int) -> dict[str, Arm]:
    """An arm for each estimator; the first is evaluated by calibrated statistics, too."""
    widths = (*SeedNetwork.widths[:-1], dataset.classes)
    optimizer = optax.adam(schedule(epochs, steps))
    size = len(dataset.train_images) // CALIBRATION_BATCHES
    images = jnp.asarray(dataset.train_images[: size * CALIBRATION_BATCHES])
    batches = images.reshape(CALIBRATION_BATCHES, size, -1)
    first, *_ = ESTIMATORS
    return {
        name: Arm(
            SeedNetwork(widths, estimator=estimator),
            optimizer,
            functools.partial(observe_others, batches=list(batches))
            if name == first
            else observe,
        )
        for name, estimator in ESTIMATORS.items()
    }


def accuracies(history: History) -> dict[str, np.ndarray]:
    """Test accuracy in percent, (seeds, epochs), by each of the statistics."""
    first, *_ = ESTIMATORS
    curves = {name: history[name]["running"] for name in ESTIMATORS}
    curves |= {name: history[first][name] for name in (CALIBRATED, BATCH)}
    return {name: 100 * np.asarray(values, float) for name, values in curves.items()}


NAMES = (*ESTIMATORS, CALIBRATED, BATCH)
HEADING = " seed   epoch  " + "  ".join(f"{name:>14}" for name in NAMES)


def line(history: History, seed: int, epoch: int) -> str:
    """What an epoch gave, below the heading."""
    curves = accuracies(history)
    seeds, epochs = next(iter(curves.values())).shape
    cells = "  ".join(f"{values[seed, epoch]:14.1f}" for values in curves.values())
    return f"{f'{seed + 1}/{seeds}':>5} {f'{epoch + 1}/{epochs}':>7}  {cells}"


def verdicts(history: History) -> list[Verdict]:
    """The claims; their thresholds were fixed before the run whose figures are shown."""
    first = {name: values[:, 0] for name, values in accuracies(history).items()}
    last = {name: values[:, -1] for name, values in accuracies(history).items()}
    epochs = next(iter(accuracies(history).values())).shape[1]
    found = [
        on_every_seed(
            f"after epoch 1, {name} is at least 3 points above a plain EMA",
            rows,
            first[name] - first["EMA"],
            first[name] - first["EMA"] >= 3,
            "points",
        )
        for name, rows in (
            ("EMA, debiased", (58, 60)),
            ("EMA, warmed up", (61,)),
            ("cumulative", (62,)),
            (CALIBRATED, (10, 20)),
        )
    ]
    gaps = {name: np.abs(first[name] - first[BATCH]) for name in first}
    found += [
        on_every_seed(
            f"after epoch 1, {name} and test-batch statistics agree within 1.5 points",
            rows,
            gaps[name],
            gaps[name] <= 1.5,
            "points apart",
        )
        for name, rows in (("EMA, warmed up", (61,)), (CALIBRATED, (10, 20)))
    ]
    return [
        *found,
        above_zero(
            f"after epoch {epochs}, EMA is above cumulative, which never forgets",
            (60, 62),
            last["EMA"] - last["cumulative"],
            "points",
        ),
    ]


def shown_epochs(epochs: int) -> list[int]:
    """Some of the epochs, and the last."""
    return [epoch for epoch in (1, 2, 5, 20) if epoch < epochs] + [epochs]


def table(history: History) -> Table:
    """Test accuracy after some epochs, mean ± sd over seeds."""
    curves = accuracies(history)
    seeds, epochs = next(iter(curves.values())).shape
    drawn = Table(
        "evaluated by",
        *(f"epoch {epoch}" for epoch in shown_epochs(epochs)),
        title=f"test accuracy in %, mean ± sd over {seeds} seed{'s' * (seeds > 1)}",
        title_justify="left",
        box=rich.box.SIMPLE,
    )
    for name, values in curves.items():
        cells = [mean_sd(values[:, epoch - 1]) for epoch in shown_epochs(epochs)]
        drawn.add_row(name, *cells)
    return drawn


def draw(history: History, path: Path) -> None:
    """Accuracy over epochs, and after the first one for each seed."""
    curves = accuracies(history)
    seeds, epochs = next(iter(curves.values())).shape
    epoch = np.arange(1, epochs + 1)
    with plotting.figure(path, rows=1, columns=2, height=3.8) as axes:
        over, early = axes[0]
        for name, values in curves.items():
            plotting.over_seeds(over, epoch, values, arm=name, label=name)
        lowest = min(values.min() for values in curves.values())
        over.set(title="Test accuracy", ylabel="%", ylim=(max(50, lowest - 2), 100))
        over.set_xlabel(f"epoch (mean and range of {seeds} seed{'s' * (seeds > 1)})")
        over.xaxis.get_major_locator().set_params(integer=True)
        over.legend(fontsize=8, loc="lower right")
        for place, (name, values) in enumerate(curves.items()):
            colour = plotting.COLOURS[name]
            early.plot(values[:, 0], [place] * seeds, "o", color=colour, ms=5, alpha=0.6)
            early.plot(values[:, 0].mean(), place, "|", color=colour, ms=16, mew=2.5)
        early.set_yticks(range(len(curves)), list(curves))
        early.invert_yaxis()
        early.set(title="After epoch 1, each seed and their mean")
        early.set(xlabel="test accuracy, %", xlim=(max(50, lowest - 2), 100))
        early.grid(axis="y", visible=False)


STUDY = Study(
    NAME,
    options.parser(NAME, __doc__ or "", epochs=(5, 2), batch_size=(120, 120)),
    compare_arms(make_arms, HEADING, line),
    verdicts,
    table,
    draw,
)

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
