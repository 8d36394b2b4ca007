"""Evaluation is as good as its statistics: moving averages, or the network measured again.

Rows 10, 20, 58, 61 and 62 of the claims. The network of the source article is trained once,
as in the main job; training does not read the running statistics, so every estimator can
follow the same training. Every few steps the network is evaluated with each estimator, and
with statistics measured again at its current weights: on some of the training samples,
or on all (Wu & Johnson 2021, arXiv:2105.07576), which is the reference for the others.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

import jaxnorm
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
from experiments.models import SeedNetwork
from experiments.models.several import Several, by
from experiments.studies.seed_network import RATE

NAME = "population"
# By the names in tables and figures.
ESTIMATORS = {
    "EMA .9": jaxnorm.ema(0.9),
    "EMA .99": jaxnorm.ema(0.99),  # used by the source
    "EMA .999": jaxnorm.ema(0.999),
    "debiased .99": jaxnorm.ema(0.99, debias=True),
    "warmed up .99": jaxnorm.ema(0.99, warmup=True),
    "warmed up .99, m/(m−1)": jaxnorm.ema(0.99, warmup=True, unbiased=True),
    "cumulative": jaxnorm.cumulative(),
    "population": jaxnorm.population(),
}
SAMPLES = (10, 100, 1000)  # for measuring the network again, besides all
AGAIN, BATCH = "measured again", "test batch"
STEPS, ROUNDS = 15, {False: 20, True: 4}
EARLY = 150  # the step of the claims, or the last step of a shorter run
SHOWN = (30, 60, 150, 300)


def again(samples: int) -> str:
    """Returns the name of statistics measured again on so many samples."""
    return f"{AGAIN}, {samples}"


NAMES = (*ESTIMATORS, *map(again, SAMPLES), AGAIN, BATCH)
COLOURS = {
    "EMA .9": "EMA .9",
    "EMA .99": "EMA",
    "EMA .999": "EMA .999",
    "debiased .99": "EMA, debiased",
    "warmed up .99": "EMA, warmed up",
    "warmed up .99, m/(m−1)": "EMA, warmed up",
    "cumulative": "cumulative",
    "population": "population",
    again(10): "calibrated",
    again(100): "calibrated",
    again(1000): "calibrated",
    AGAIN: "calibrated",
    BATCH: "test batch",
}


def observe(model, variables, data) -> dict[str, Any]:
    """For each of `NAMES`: accuracy, and errors of the first norm's mean and variance."""

    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    def measured_again(samples: int | None):
        images = data.train_images[:samples]
        there = jaxnorm.calibrate(train, variables, [images], progress=False)
        return by(next(iter(ESTIMATORS)), model, there)

    kept = {name: by(name, model, variables) for name in ESTIMATORS}
    kept |= {again(samples): measured_again(samples) for samples in SAMPLES}
    kept |= {AGAIN: measured_again(None)}
    truth = first_norm(*kept[AGAIN])
    found = {
        name: errors(first_norm(*each), truth)
        | {
            "accuracy": accuracy(
                each[0].apply(each[1], data.test_images, train=False), data.test_labels
            )
        }
        for name, each in kept.items()
    }
    logits, _ = train(variables, data.test_images)
    found[BATCH] = {"accuracy": accuracy(logits, data.test_labels)}
    return {f"{name}: {what}": of[what] for name, of in found.items() for what in of}


def first_norm(model: Any, variables: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and variance that the first norm uses in evaluation."""
    statistics = variables["batch_stats"]["BatchNorm_0"]
    return statistics["mean"], statistics["var"]


def errors(found: tuple[Any, Any], truth: tuple[Any, Any]) -> dict[str, jax.Array]:
    """Returns the errors of the mean and of the logarithm of the variance.

    Both are averaged over features; the mean is in units of the standard deviation.
    """
    (mean, var), (true_mean, true_var) = found, truth
    return {
        "mean": jnp.mean(jnp.abs(mean - true_mean) / jnp.sqrt(true_var)),
        "var": jnp.mean(jnp.abs(jnp.log(var / true_var))),
    }


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains one network per seed."""
    widths = (*SeedNetwork.widths[:-1], dataset.classes)
    model = SeedNetwork(widths, estimator=Several(tuple(ESTIMATORS.items())))
    batches = shuffled(ROUNDS[chosen.quick], STEPS, size=120)
    trial = Trial(Arm(model, optax.adam(RATE), observe), batches)

    def line(name: str, found: dict[str, np.ndarray]) -> str:
        of_step = {n: found[f"{n}: accuracy"][:, -1] for n in NAMES}
        return "\n".join(f"{n:>24}  {mean_sd(100 * of)}" for n, of in of_step.items())

    heading = "            evaluated by  test accuracy after the last step, %"
    seeds = chosen.seeds
    return sweep(run, {NAME: trial}, dataset, seeds=seeds, heading=heading, line=line)


def curves(history: History, what: str) -> dict[str, np.ndarray]:
    """For each of `NAMES` that has it: (seeds, rounds), with accuracy in percent."""
    unit = 100 if what == "accuracy" else 1
    found = history[NAME]
    return {n: unit * found[f"{n}: {what}"] for n in NAMES if f"{n}: {what}" in found}


def steps_of(history: History) -> np.ndarray:
    """Returns the last step of each round."""
    return STEPS * np.arange(1, history[NAME]["loss"].shape[1] + 1)


def at(history: History, step: int, what: str = "accuracy") -> dict[str, np.ndarray]:
    """For each of `NAMES`: (seeds,) after `step` steps, or at an earlier end."""
    place = min(step // STEPS, history[NAME]["loss"].shape[1]) - 1
    return {name: values[:, place] for name, values in curves(history, what).items()}


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    last = int(steps_of(history)[-1])
    early = min(EARLY, last)
    then, now = at(history, early), at(history, last)
    behind = then[AGAIN] - then["EMA .999"]
    near = [
        ("warmed up .99", early, then, AGAIN, 1, (61,)),
        ("cumulative", early, then, AGAIN, 1, (62,)),
        ("EMA .99", last, now, AGAIN, 1, (58,)),
        (AGAIN, last, now, BATCH, 1.5, (20,)),
    ]
    few = now[AGAIN] - now[again(SAMPLES[0])]
    log_variance = at(history, last, "var")
    plain, corrected = (
        log_variance[name] for name in ("warmed up .99", "warmed up .99, m/(m−1)")
    )
    return [
        on_every_seed(
            f"after {early} steps, EMA .999 is at least 5 points below {AGAIN}",
            (),
            behind,
            behind >= 5,
            "points",
        ),
        *(
            on_every_seed(
                f"after {step} steps, {name} is within {most:g} "
                f"point{'s' * (most > 1)} of {other}",
                rows,
                np.abs(of[name] - of[other]),
                np.abs(of[name] - of[other]) <= most,
                "points apart",
            )
            for name, step, of, other, most, rows in near
        ),
        on_every_seed(
            f"{AGAIN} on {SAMPLES[0]} samples is at least 5 points below on all",
            (),
            few,
            few >= 5,
            "points",
        ),
        above_zero(
            f"after {last} steps, m/(m−1) makes the variance of an average more accurate",
            (10,),
            100 * (plain - corrected),
            "% of the variance",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy after some steps, mean ± sd over seeds."""
    last = steps_of(history)[-1]
    shown = [step for step in SHOWN if step < last] + [last]
    drawn = make_table(
        "evaluated by",
        *(f"step {step}" for step in shown),
        title="test accuracy in %, mean ± sd over seeds",
    )
    for name in NAMES:
        drawn.add_row(name, *(mean_sd(at(history, step)[name]) for step in shown))
    return drawn


DRAWN = tuple(n for n in NAMES if n not in (*map(again, SAMPLES), "warmed up .99, m/(m−1)"))


def draw(history: History, path: Path) -> None:
    """Draws accuracy and errors of statistics over steps, and early accuracy per seed."""
    steps = steps_of(history)
    early = min(EARLY, int(steps[-1]))
    with plotting.figure(path, rows=2, columns=2, height=3.6) as axes:
        (over, each), (mean, var) = axes
        for place, what in ((over, "accuracy"), (mean, "mean"), (var, "var")):
            of = curves(history, what)
            for name in DRAWN:
                if name in of:
                    plotting.over_seeds(
                        place, steps, of[name], arm=COLOURS[name], label=name
                    )
            place.set_xlabel(f"step ({plotting.seeds(of[DRAWN[0]])})")
        over.set(title="Test accuracy", ylabel="%", ylim=(50, 100))
        mean.set(title="Error of the mean, first norm", ylabel="standard deviations")
        var.set(title="Error of the variance, first norm", ylabel="|log ratio|")
        for place, decades in ((mean, (0.01, 3)), (var, (0.01, 10))):
            place.set(yscale="log", ylim=decades)
        for place in (over, mean, var):
            plotting.threshold(place, x=early)
        plotting.each_seed(each, at(history, early), COLOURS)
        each.set(title=f"After {early} steps, each seed", xlabel="test accuracy, %")
        each.tick_params(axis="y", labelsize=9)


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
