"""The network of the source article with and without batch normalisation: the main job.

Rows 12, 13 and 64–68 of the claims. Seven layer sizes, 784 to 10, trained on digits by
Adam; the arms differ only in the norm, start at the same weights and see the same batches.
The source actually measured accuracy with the statistics of the test batch (its flag for
testing is never used). Here that is shown beside accuracy with running statistics: the
source's moving average, the same debiased or warmed up, and statistics measured again.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

import jaxnorm
from experiments.harness import options, plotting
from experiments.harness.comparing import History
from experiments.harness.data import Dataset
from experiments.harness.results import (
    Verdict,
    above_zero,
    make_table,
    mean_sd,
    on_every_seed,
)
from experiments.harness.study import Study, compare_arms
from experiments.harness.training import Arm, accuracy
from experiments.models import SeedNetwork
from experiments.models.several import Several, by

NAME = "seed_network"
RATE = 0.02
DECAY_AFTER = 0.15  # share of the epochs
PERCENTILES = (15, 50, 85)
DECAY = 0.99
ESTIMATORS = {
    "running": jaxnorm.ema(DECAY),  # used by the source
    "debiased": jaxnorm.ema(DECAY, debias=True),
    "warmed up": jaxnorm.ema(DECAY, warmup=True),
}
EVALUATED = (*ESTIMATORS, "calibrated", "batch")
COLOURS = {  # by curve, the names in plotting.COLOURS
    "plain": "plain",
    "BN, running": "batch_norm",
    "BN, debiased": "EMA, debiased",
    "BN, warmed up": "EMA, both",
    "BN, calibrated": "calibrated",
    "BN, batch": "batch statistics",
}


def learning_rate(epoch: Any, epochs: int) -> Any:
    """Returns the rate of an epoch (from 0): constant, then falling linearly towards 0."""
    start = round(DECAY_AFTER * epochs)
    return RATE * jnp.minimum(1.0, (epochs - epoch) / (epochs - start))


def schedule(epochs: int, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, with `steps` per epoch."""
    return lambda step: learning_rate(jnp.asarray(step) // steps, epochs)


def observe_plain(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracy and the percentiles of the first relu's input."""
    logits, sown = model.apply(
        variables, data.test_images, train=False, mutable=["intermediates"]
    )
    return {
        "accuracy": accuracy(logits, data.test_labels),
        "input": _percentiles(sown),
    }


def observe_normalized(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracy with all statistics, and percentiles with the test batch's."""
    images, labels = data.test_images, data.test_labels

    def train(variables: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        return model.apply(
            variables, images, train=True, mutable=["intermediates", "batch_stats"]
        )

    kept = {name: by(name, model, variables) for name in ESTIMATORS}
    again = jaxnorm.calibrate(train, variables, [data.train_images], progress=False)
    kept["calibrated"] = by("running", model, again)
    logits = {
        name: one.apply(statistics, images, train=False)
        for name, (one, statistics) in kept.items()
    }
    logits["batch"], sown = train(variables, images)
    found = {name: accuracy(each, labels) for name, each in logits.items()}
    return found | {"input": _percentiles(sown)}


def _percentiles(sown: Any) -> jax.Array:
    (first,) = sown["intermediates"]["first"]
    return jnp.percentile(first, jnp.array(PERCENTILES, jnp.float32))


def make_arms(dataset: Dataset, epochs: int, steps: int) -> dict[str, Arm]:
    """Returns the two arms, which differ only in the norm; `steps` is per epoch."""
    widths = (*SeedNetwork.widths[:-1], dataset.classes)
    optimizer = optax.adam(schedule(epochs, steps))
    return {
        "plain": Arm(SeedNetwork(widths, normalized=False), optimizer, observe_plain),
        "batch_norm": Arm(
            SeedNetwork(widths, estimator=Several(tuple(ESTIMATORS.items()))),
            optimizer,
            observe_normalized,
        ),
    }


def accuracies(history: History) -> dict[str, np.ndarray]:
    """Returns test accuracy in percent, (seeds, epochs): plain, and BN by statistics."""
    norm = history["batch_norm"]
    curves = {"plain": history["plain"]["accuracy"]}
    curves |= {f"BN, {name}": norm[name] for name in EVALUATED}
    return {name: 100 * np.asarray(values, float) for name, values in curves.items()}


HEADING = """\
                    loss        test accuracy, %: plain, BN by each of the statistics
 seed   epoch   plain      BN   plain  running debiased warmed up calibrated  batch  rate"""


def line(history: History, seed: int, epoch: int) -> str:
    """Returns the line of an epoch, below the heading."""
    plain, norm = (history[arm] for arm in ("plain", "batch_norm"))
    seeds, epochs = plain["loss"].shape
    loss = " ".join(f"{arm['loss'][seed, epoch]:7.4f}" for arm in (plain, norm))
    measured = [values[seed, epoch] for values in accuracies(history).values()]
    widths = (7, 8, 8, 9, 10, 6)  # of the columns below the heading
    cells = " ".join(f"{value:{w}.1f}" for value, w in zip(measured, widths, strict=True))
    return (
        f"{f'{seed + 1}/{seeds}':>5} {f'{epoch + 1}/{epochs}':>7} {loss} {cells}"
        f"  {float(learning_rate(epoch, epochs)):.6f}"
    )


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    curves = accuracies(history)
    plain, running, batch = (curves[n] for n in ("plain", "BN, running", "BN, batch"))
    epochs = plain.shape[1]
    late = slice(epochs - max(1, epochs // 4), None)
    deviation = {arm: history[arm]["loss_sd"][:, late].mean(1) for arm in history}
    early = batch[:, 0] - plain[:, 0]
    gap = np.abs(running[:, -1] - batch[:, -1])
    with np.errstate(divide="ignore", invalid="ignore"):  # one batch an epoch: 0/0
        unsteadiness = deviation["plain"] / deviation["batch_norm"]
    return [
        on_every_seed(
            "after epoch 1, BN with batch statistics is at least 3 points above plain",
            (12, 68),
            early,
            early >= 3,
            "points",
        ),
        above_zero(
            f"after epoch {epochs}, BN with running statistics is above plain",
            (13, 68),
            running[:, -1] - plain[:, -1],
            "points",
        ),
        on_every_seed(
            f"after epoch {epochs}, running and batch statistics agree within 1.5 points",
            (58, 67),
            gap,
            gap <= 1.5,
            "points apart",
        ),
        on_every_seed(
            "late in training, the loss varies more from batch to batch without BN",
            (13,),
            unsteadiness,
            unsteadiness > 1,
            "times BN's deviation",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy after some epochs (mean ± sd) and epochs to 90 %."""
    curves = accuracies(history)
    seeds, epochs = curves["plain"].shape
    shown = [epoch for epoch in (1, 2, 5, 20, 100) if epoch < epochs] + [epochs]
    drawn = make_table(
        "after epoch",
        *map(str, shown),
        "90 % after",
        title=f"test accuracy in %, mean ± sd over {seeds} seed{'s' * (seeds > 1)}",
    )
    for name, values in curves.items():
        reached = values >= 90
        first = np.where(reached.any(1), reached.argmax(1) + 1.0, np.inf)
        cells = [mean_sd(values[:, epoch - 1]) for epoch in shown]
        drawn.add_row(name, *cells, _epochs_to(first))
    return drawn


def _epochs_to(first: np.ndarray) -> str:
    reached = np.isfinite(first)
    if not reached.any():
        return "not reached"
    missing = "" if reached.all() else f" ({reached.sum()}/{len(first)} seeds)"
    return mean_sd(first[reached]) + missing


def draw(history: History, path: Path) -> None:
    """Draws the loss, test accuracy, the first relu's input and the learning rate."""
    seeds, epochs = history["plain"]["loss"].shape
    epoch = np.arange(1, epochs + 1)
    with plotting.figure(path, rows=2, columns=2) as axes:
        (loss, test), (inputs, rate) = axes
        for arm, label in (("plain", "plain"), ("batch_norm", "batch norm")):
            plotting.over_seeds(loss, epoch, history[arm]["loss"], arm=arm, label=label)
            low, middle, high = np.moveaxis(history[arm]["input"].mean(0), -1, 0)
            colour = plotting.COLOURS[arm]
            inputs.plot(epoch, middle, color=colour, label=f"{label}, median")
            inputs.plot(epoch, low, "--", epoch, high, "--", color=colour, lw=1.2)
        inputs.plot([], "--", color="grey", lw=1.2, label="15th, 85th percentile")
        loss.set(title="Training loss", ylabel="cross-entropy, nats", yscale="log")
        for name, values in accuracies(history).items():
            plotting.over_seeds(test, epoch, values, arm=COLOURS[name], label=name)
        test.axhline(90, color="grey", lw=1, ls=":")
        lowest = min(values.min() for values in accuracies(history).values())
        test.set(title="Test accuracy", ylabel="%", ylim=(max(60, lowest - 12), 100))
        inputs.set(title="Input of the first relu")
        inputs.set(ylabel="value on the test data")
        bottom, top = inputs.get_ylim()
        inputs.set_ylim(bottom, top + 0.6 * (top - bottom))  # room for the legend
        rates = [float(learning_rate(each, epochs)) for each in range(epochs)]
        rate.step(epoch, rates, where="mid", color="black")
        rate.set(title="Learning rate", ylabel="Adam's rate", ylim=(0, None))
        for each in (loss, test, inputs):
            each.legend(fontsize=9, ncols=2 if each is test else 1)
        over = f"of {seeds} seed{'s' * (seeds > 1)}"
        for each in (loss, test):
            each.set_xlabel(f"epoch (mean and range {over})")
        inputs.set_xlabel(f"epoch (mean {over})")
        rate.set_xlabel("epoch")
        for each in axes.flat:
            each.xaxis.get_major_locator().set_params(integer=True)


def parser() -> options.Parser:
    """Returns the parser of this experiment's options."""
    made = options.parser(NAME, __doc__ or "", epochs=(20, 2), batch_size=(120, 120))
    made.add_argument(
        "--full",
        dest="epochs",
        action="store_const",
        const=100,
        help="the source's 100 epochs, same as --epochs 100",
    )
    return made


STUDY = Study(
    NAME,
    parser(),
    compare_arms(make_arms, HEADING, line),
    verdicts,
    table,
    draw,
)
