"""Batch norm allows learning rates several times larger: accuracy over the rate.

Row 51 of the claims. Five layers of 100 relu units, with and without batch norm, trained by
plain SGD at rates from .001 to 30; the arms start at the same weights and see the same
batches. A rate is stable for a seed if its loss stays finite and it ends at 80 % or more.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import optax
from rich.table import Table

from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, at_rate, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import Verdict, make_table, mean_sd, on_every_seed
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm, observe_accuracy
from experiments.models import Deep, batch_norm

NAME = "learning_rate"
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
NORMS = {"plain": None, "batch_norm": batch_norm}
STEPS = {False: 600, True: 60}  # by whether the run is quick
STABLE = 80.0  # percent
WIDTHS = (100,) * 5


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each norm at each rate."""
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    batches = shuffled(rounds=1, steps=STEPS[chosen.quick], size=64)
    trials = {}
    for name, norm in NORMS.items():
        arm = Arm(Deep(WIDTHS, dataset.classes, norm), optimizer, observe_accuracy)
        for rate in RATES:
            trials[trial_name(name, rate)] = Trial(arm, batches, at_rate(rate))

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def trial_name(norm: str, rate: float) -> str:
    """Returns the key of a trial in the history."""
    return f"{norm}, {rate:g}"


def accuracies(history: History, norm: str) -> np.ndarray:
    """Returns final test accuracies in percent, (seeds, rates); NaN where diverged."""
    of_rates = [history[trial_name(norm, rate)]["accuracy"][:, -1] for rate in RATES]
    return 100 * np.stack(of_rates, axis=1)


def largest_stable(history: History, norm: str) -> np.ndarray:
    """Returns the largest stable rate, (seeds,); 0 if there is no stable one."""
    stable = accuracies(history, norm) >= STABLE  # False for NaN
    return np.max(np.where(stable, RATES, 0.0), axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    plain, norm = (largest_stable(history, each) for each in NORMS)
    ratio = np.round(norm / np.maximum(plain, min(RATES)), 6)  # .3/.1 is below 3
    best_plain, best_norm = (accuracies(history, each) for each in NORMS)
    gap = np.nanmax(best_norm, axis=1) - np.nanmax(best_plain, axis=1)
    return [
        on_every_seed(
            "with BN the largest stable rate is at least 3 times that without",
            (51,),
            ratio,
            ratio >= 3,
            "times",
        ),
        on_every_seed(
            "each at its best rate, BN ends at least 1 point above plain",
            (),
            gap,
            gap >= 1,
            "points",
        ),
    ]


def table(history: History) -> Table:
    """Tabulates test accuracy at each rate, and the largest stable rate."""
    drawn = make_table(
        "rate",
        *NORMS,
        title="test accuracy in %, mean ± sd over seeds",
    )
    for place, rate in enumerate(RATES):
        cells = [mean_sd(accuracies(history, norm)[:, place]) for norm in NORMS]
        drawn.add_row(f"{rate:g}", *cells)
    drawn.add_row("stable to", *(mean_sd(largest_stable(history, norm)) for norm in NORMS))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws accuracy over the rate, and marks where training diverged."""
    with plotting.figure(path, rows=1, columns=1, height=3.8, width=6.4) as axes:
        ((drawn,),) = axes
        for norm, label in zip(NORMS, ("plain", "batch norm"), strict=True):
            values = accuracies(history, norm)
            plotting.over_seeds(drawn, RATES, values, arm=norm, label=label, marker="o")
            plotting.diverged(drawn, RATES, values, arm=norm)
        plotting.threshold(drawn, y=STABLE)
        drawn.set(title="Test accuracy after training", ylabel="%", ylim=(0, 100))
        of = plotting.seeds(accuracies(history, "plain"))
        drawn.set(xscale="log", xlabel=f"learning rate of SGD ({of})")
        drawn.plot([], "x", color=plotting.COLOURS["plain"], ms=8, label="diverged")
        drawn.legend(loc="lower center", bbox_to_anchor=(0.44, 0.12))


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
