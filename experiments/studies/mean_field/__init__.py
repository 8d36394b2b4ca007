"""Batch norm makes gradients explode with depth, by a factor that theory predicts.

Yang et al. 2019 (1902.08129). Measured at initialisation: how ‖∂L/∂W‖² grows from the last
layer to the first, with batch norm and relu, or no activation, for batches of 8 to 256; and
without norm, with He initialisation, where it should not grow. The growth is fitted to 60
layers except the first 5 and the last 10, where the distribution of the samples or of the
gradients is not yet the limit of a deep network.

Then 20 layers of 100 relu units are trained by SGD at several rates, with and without batch
norm, from the same initial weights of He; the networks without it should reach the higher
accuracy, each at its best rate.
"""

from argparse import Namespace
from pathlib import Path

import flax.linen as nn
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
from experiments.studies.mean_field.explosion import (
    BATCH,
    BATCHES,
    DEPTH,
    DEPTHS,
    KERNELS,
    growth,
    measure_gradients,
    network_name,
    rate,
)

NAME = "mean_field"
TOLERANCE = 3.0  # percent
WIDTH = {False: 256, True: 64}  # by whether the run is quick
TRAINED_DEPTH = {False: 20, True: 4}
STEPS = {False: 200, True: 20}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# The batch sizes of the claims. With 64, no growth at all would be within the tolerance
# of the linear network's growth.
CLAIMED = {"relu": 64, "linear": 8}
HE = nn.initializers.he_normal()
TRAINED = {"plain": None, "batch_norm": batch_norm}


def trial_name(norm: str, rate: float) -> str:
    """Returns the key of a trial in the history."""
    return f"{norm}, rate {rate:g}"


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Measures the gradients at initialisation, and then trains."""
    found = measure_gradients(run, WIDTH[chosen.quick], chosen.seeds)
    if chosen.quick:
        depth = TRAINED_DEPTH[chosen.quick]
        run.note(
            f"quick: the trained networks have {depth} layers instead of the 20 in the text"
        )
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    batches = shuffled(rounds=1, steps=STEPS[chosen.quick], size=64)
    widths, trials = (100,) * TRAINED_DEPTH[chosen.quick], {}
    for name, norm in TRAINED.items():
        model = Deep(widths, dataset.classes, norm, kernel_init=HE)
        arm = Arm(model, optimizer, observe_accuracy)
        for each in RATES:
            trials[trial_name(name, each)] = Trial(arm, batches, at_rate(each))

    return found | sweep(run, trials, dataset, seeds=chosen.seeds)


def accuracies(history: History, norm: str) -> np.ndarray:
    """Returns final test accuracies in percent, (seeds, rates); NaN where diverged."""
    of_rates = [history[trial_name(norm, each)]["accuracy"][:, -1] for each in RATES]
    return 100 * np.stack(of_rates, axis=1)


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""
    found = []
    for network, kernel in KERNELS.items():
        batch = CLAIMED[network]
        theory = rate(kernel, batch)
        off = 100 * (growth(history, network, batch) / theory - 1)
        claim = (
            f"{network}, batch of {batch}: gradients grow by {theory:.4f} a layer "
            f"(within {TOLERANCE:g} %)"
        )
        found.append(on_every_seed(claim, (), off, np.abs(off) <= TOLERANCE, "% off"))
    plain, norm = (np.nan_to_num(accuracies(history, each)).max(axis=1) for each in TRAINED)
    claim = "20 layers learn better by He's initialisation without BN than with it"
    return [*found, on_every_seed(claim, (), plain - norm, plain > norm, "points")]


def table(history: History) -> Table:
    """Tabulates the growth per layer beside theory, and the accuracy at each rate."""
    drawn = make_table(
        "",
        *("measured", "theory"),
        title="growth of ‖gradient‖² a layer, and test accuracy in % of 20 layers",
    )
    for network, kernel in KERNELS.items():
        for batch in BATCHES:
            measured = f"{growth(history, network, batch).mean():.4f}"
            drawn.add_row(
                f"BN, {network}, batch of {batch}", measured, f"{rate(kernel, batch):.4f}"
            )
    drawn.add_row("plain, relu", f"{growth(history, 'plain', BATCH).mean():.4f}", "1")
    drawn.add_section()
    for norm in TRAINED:
        for place, each in enumerate(RATES):
            values = accuracies(history, norm)[:, place]
            drawn.add_row(trial_name(norm, each), mean_sd(values))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws gradients by layer and depth, their growth by batch size, and the accuracy."""
    with plotting.figure(path, rows=2, columns=2, height=3.3) as axes:
        draw_layers(axes[0, 0], history)
        draw_depths(axes[0, 1], history)
        draw_growth(axes[1, 0], history)
        panel, final = axes[1, 1], accuracies(history, "plain")
        for norm, label in zip(TRAINED, ("plain, He", "batch norm"), strict=True):
            values = accuracies(history, norm)
            plotting.over_seeds(panel, RATES, values, arm=norm, label=label, marker="o")
            plotting.diverged(panel, RATES, values, arm=norm)
        panel.set(title="20 layers, trained", ylabel="test accuracy, %", ylim=(0, 100))
        panel.set(xscale="log", xlabel=f"learning rate ({plotting.seeds(final)})")
        panel.legend(loc="upper left")


def draw_layers(axes, history: History) -> None:
    """Draws ‖gradient‖² of each layer relative to the last layer, and the theory."""
    layers = np.arange(1, DEPTH + 1)
    for network, batch, arm in (
        *(("relu", batch, f"batch of {batch}") for batch in BATCHES),
        ("plain", BATCH, "plain"),
    ):
        gradients = history[network_name(network, batch, DEPTH)]["gradients"]
        relative = gradients / gradients[:, -1:]
        label = "plain, He" if arm == "plain" else f"BN, {arm}"
        plotting.over_seeds(axes, layers, relative, arm=arm, label=label)
        if network in KERNELS:
            line = rate(KERNELS["relu"], batch) ** (DEPTH - 10.0 - layers)
            at = np.exp(np.log(relative[:, DEPTH - 11]).mean())
            axes.plot(layers, at * line, "k:", lw=1)
    axes.set(yscale="log", xlabel="layer (dotted: theory)", title="60 relu layers")
    axes.set_ylabel("‖gradient‖² over the last layer's")
    axes.legend(fontsize=9)


def draw_depths(axes, history: History) -> None:
    """Draws ‖gradient‖² of the first layer relative to the last, for each depth."""
    for network, arm, label in (
        ("relu", "batch_norm", "batch norm"),
        ("plain", "plain", "plain, He"),
    ):
        each = [history[network_name(network, BATCH, d)]["gradients"] for d in DEPTHS]
        grown = np.stack([g[:, 0] / g[:, -1] for g in each], axis=1)
        plotting.over_seeds(axes, DEPTHS, grown, arm=arm, label=label, marker="o")
    axes.set(yscale="log", xlabel="layers", title=f"batch of {BATCH}, relu")
    axes.set_ylabel("‖gradient‖², first over last")
    axes.legend(loc="upper left")


def draw_growth(axes, history: History) -> None:
    """Draws the factor per layer over the batch size, and the theory."""
    sizes = np.geomspace(BATCHES[0], BATCHES[-1], 100)
    for network, arm, label in (
        ("relu", "batch_norm", "BN, relu"),
        ("linear", "linear", "BN, no activation"),
    ):
        values = np.stack([growth(history, network, batch) for batch in BATCHES], axis=1)
        plotting.over_seeds(
            axes, BATCHES, values, arm=arm, label=label, ls="none", marker="o"
        )
        axes.plot(sizes, [rate(KERNELS[network], b) for b in sizes], "k:", lw=1)
    axes.axhline(np.pi / (np.pi - 1), color="grey", lw=1, ls="--")
    axes.text(BATCHES[0], np.pi / (np.pi - 1) - 0.02, "π/(π − 1)", va="top")
    axes.set(xscale="log", xlabel="batch size (dotted: theory)", ylim=(0.95, 1.9))
    axes.set_xticks(BATCHES, BATCHES, minor=False)
    axes.minorticks_off()
    axes.set(ylabel="growth a layer", title="60 layers")
    axes.legend(loc="upper right")


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
