"""Batch norm makes training depend less on the first weights: accuracy over their scale.

Same set-up as `learning_rate`: five layers of 100 relu units, with and without batch norm,
trained by plain SGD. All weights are drawn from N(0, σ²), with σ from .001 to 10: the same
draws, scaled, so that the arms and scales of a seed differ in nothing else. Ioffe & Szegedy
(arXiv 1502.03167) claim that one can be less careful about initialisation; that both arms
degrade where σ is large was found in our own trials.
"""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
from rich.table import Table

from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import Verdict, make_table, mean_sd, on_every_seed
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm, TrainState, observe_accuracy
from experiments.models import Deep, batch_norm

NAME = "initialisation"
SCALES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
NORMS = {"plain": None, "batch_norm": batch_norm}
LABELS = {"plain": "plain", "batch_norm": "BN"}
STEPS = {False: 600, True: 60}  # by whether the run is quick
WIDTHS = (100,) * 5
RATE = 0.1

# In percent; fixed before the run whose figures are shown.
SMALL, LARGE = 0.01, 1.0  # the claims are about scales up to SMALL and from LARGE
TRAINED = 85.0
CHANCE = 20.0
LOSS = 5.0  # points


def at_scale(scale: float) -> Callable[[TrainState], TrainState]:
    """Multiplies the weights by `scale`; leaves the biases and γ as they are."""

    def scaled(path: tuple, value: jax.Array) -> jax.Array:
        return value * scale if path[-1].key == "kernel" else value

    def prepare(state: TrainState) -> TrainState:
        params = jax.tree_util.tree_map_with_path(scaled, state.params)
        return state._replace(params=params)

    return prepare


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each norm from each scale."""
    batches = shuffled(rounds=1, steps=STEPS[chosen.quick], size=64)
    standard = nn.initializers.normal(1.0)
    trials = {}
    for name, norm in NORMS.items():
        model = Deep(WIDTHS, dataset.classes, norm, kernel_init=standard)
        arm = Arm(model, optax.sgd(RATE), observe_accuracy)
        for scale in SCALES:
            trials[trial_name(name, scale)] = Trial(arm, batches, at_scale(scale))

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def trial_name(norm: str, scale: float) -> str:
    """Returns the key of a trial in the history."""
    return f"{norm}, {scale:g}"


def accuracies(history: History, norm: str) -> np.ndarray:
    """Returns final test accuracies in percent, (seeds, scales); NaN where diverged."""
    of_scales = [history[trial_name(norm, each)]["accuracy"][:, -1] for each in SCALES]
    return 100 * np.stack(of_scales, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; diverged training counts as 0 %."""
    plain, norm = (np.nan_to_num(accuracies(history, each)) for each in NORMS)
    small = np.array(SCALES) <= SMALL
    lowest, highest = norm[:, small].min(1), plain[:, small].max(1)
    return [
        on_every_seed(
            f"with BN, accuracy is at least {TRAINED:g} % at every σ up to {SMALL:g}",
            (),
            lowest,
            lowest >= TRAINED,
            "% at the worst",
        ),
        on_every_seed(
            f"without BN, it is at most {CHANCE:g} % there",
            (),
            highest,
            highest <= CHANCE,
            "% at the best",
        ),
        degrades("plain", plain),
        degrades("batch_norm", norm),
    ]


def degrades(name: str, values: np.ndarray) -> Verdict:
    """Tests whether accuracies of a norm, (seeds, scales), suffer where σ is large."""
    large = np.array(SCALES) >= LARGE
    lost = values.max(1) - values[:, large].max(1)
    return on_every_seed(
        f"{LABELS[name]}: at every σ from {LARGE:g} on, at least {LOSS:g} points are lost "
        "against the best σ",
        (),
        lost,
        lost >= LOSS,
        "points",
    )


def table(history: History) -> Table:
    """Tabulates test accuracy at each scale."""
    drawn = make_table(
        "σ",
        *LABELS.values(),
        title="test accuracy in %, mean ± sd over seeds",
    )
    for place, scale in enumerate(SCALES):
        cells = [mean_sd(accuracies(history, norm)[:, place]) for norm in NORMS]
        drawn.add_row(f"{scale:g}", *cells)
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws accuracy over the scale, and marks where training diverged."""
    number = plotting.seeds(accuracies(history, "plain"))
    with plotting.figure(path, rows=1, columns=1, height=3.8, width=6.4) as axes:
        ((drawn,),) = axes
        for norm, label in zip(NORMS, ("plain", "batch norm"), strict=True):
            values = accuracies(history, norm)
            plotting.over_seeds(drawn, SCALES, values, arm=norm, label=label, marker="o")
            plotting.diverged(drawn, SCALES, values, arm=norm)
        drawn.plot([], "x", color=plotting.COLOURS["plain"], ms=8, label="diverged")
        plotting.threshold(drawn, y=TRAINED)
        plotting.threshold(drawn, y=CHANCE)
        drawn.set(title="Test accuracy after training", ylabel="%", ylim=(0, 100))
        drawn.set(xscale="log")
        drawn.set_xlabel(f"σ of the first weights ({number})")
        drawn.legend(loc="center left")


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
