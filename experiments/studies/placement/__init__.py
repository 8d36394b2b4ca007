"""Batch norm works before and after the activation, and in a CNN as other norms do.

Rows 19, 29 and 55 of the claims, and a drawing of row 36. Three layers of 100 units,
relu or sigmoid, have batch norm before or after the activation, and are trained by SGD
at .3 (at .1, in a trial with one seed, sigmoid with batch norm before it ended at 88.6 %).
The convolutional network of row 55, which flattens its images before the last layer, has
batch, layer, instance or group norm (8 groups), and is trained by Adam. The arms of a
network start at the same weights and see the same batches.
"""

from argparse import Namespace
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
from rich.table import Table

import jaxnorm.linen as jn
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
from experiments.harness.training import Arm, make_stepwise_epoch, observe_accuracy
from experiments.models import Convolutional, Deep, batch_norm
from experiments.models.deep import Activation
from experiments.studies.placement.axes_diagram import draw_axes

NAME = "placement"
ENOUGH = 90.0  # percent
DENSE_STEPS = {False: 600, True: 60}  # by whether the run is quick
CONV_STEPS = {False: 80, True: 20}
DENSE: dict[str, tuple[Activation, bool]] = {  # and whether the norm comes first
    "relu, BN before": (nn.relu, True),
    "relu, BN after": (nn.relu, False),
    "sigmoid, BN before": (nn.sigmoid, True),
    "sigmoid, BN after": (nn.sigmoid, False),
}
CONV_BN = "batch norm"
CONV = {
    CONV_BN: "batch_norm",
    "layer norm": "layer_norm",
    "instance norm": "instance_norm",
    "group norm": "group_norm",
}
MEANS = {
    "batch_norm": "batch norm\nover N, H, W",
    "layer_norm": "layer norm\nover H, W, C",
    "instance_norm": "instance norm\nover H, W",
    "group_norm": "group norm\nover H, W, C/groups",
}


def layer_norm(train: bool) -> nn.Module:
    """Normalises over H, W and C, with γ and β per channel as in group norm's paper."""
    return jn.LayerNorm(reduction_axes=(1, 2, 3))


def instance_norm(train: bool) -> nn.Module:
    return jn.InstanceNorm()


def group_norm(train: bool) -> nn.Module:
    return jn.GroupNorm(num_groups=8)


NORMS = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
}


class OnMaps(Deep):
    """Dense layers on images of shape (images, H, W, C), as for convolutions."""

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return super().__call__(x.reshape(len(x), -1), train=train)


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains the dense networks, then the convolutional ones."""
    classes, trials = dataset.classes, {}
    batches = shuffled(rounds=1, steps=DENSE_STEPS[chosen.quick], size=64)
    for name, (activation, first) in DENSE.items():
        model = OnMaps(
            classes=classes, norm=batch_norm, activation=activation, norm_first=first
        )
        trials[name] = Trial(Arm(model, optax.sgd(0.3), observe_accuracy), batches)
    batches = shuffled(rounds=1, steps=CONV_STEPS[chosen.quick], size=50)
    for name, norm in CONV.items():
        model = Convolutional(flatten=True, classes=classes, norm=NORMS[norm])
        trials[name] = Trial(Arm(model, optax.adam(1e-3), observe_accuracy), batches)

    return sweep(
        run,
        trials,
        dataset.maps,
        seeds=chosen.seeds,
        make_epoch=make_stepwise_epoch,
    )


def final(history: History, name: str) -> np.ndarray:
    """Returns final test accuracies in percent, (seeds,); NaN where training diverged."""
    return 100 * history[name]["accuracy"][:, -1]


def verdicts(history: History) -> list[Verdict]:
    """Returns the verdicts; thresholds were fixed before the run that is shown."""

    def least(names: tuple[str, ...]) -> np.ndarray:
        """Returns the lowest accuracy of these networks; diverged ones count as 0."""
        return np.min([np.nan_to_num(final(history, name)) for name in names], axis=0)

    def after(activation: str) -> np.ndarray:
        return final(history, f"{activation}, BN after") - final(
            history, f"{activation}, BN before"
        )

    dense, conv, batch = least(tuple(DENSE)), least(tuple(CONV)), final(history, CONV_BN)
    return [
        on_every_seed(
            "BN before or after relu or sigmoid: all end at 90 % or more",
            (),
            dense,
            dense >= ENOUGH,
            "%",
        ),
        on_every_seed(
            "the CNN with BN, LN, IN and GN: all end at 90 % or more",
            (55,),
            conv,
            conv >= ENOUGH,
            "%",
        ),
        on_every_seed(
            "BN fits CNNs: with it this one ends at 90 % or more",
            (19,),
            batch,
            batch >= ENOUGH,
            "%",
        ),
        *(
            above_zero(
                f"BN is better after {activation} than before", (29,), difference, "points"
            )
            for activation in ("relu", "sigmoid")
            for difference in [after(activation)]
        ),
    ]


def table(history: History) -> Table:
    """Tabulates the test accuracy of each network."""
    drawn = make_table(
        "network",
        "test accuracy, %",
        title="mean ± sd over seeds",
    )
    for name in (*DENSE, *CONV):
        drawn.add_row(name, mean_sd(final(history, name)))
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws the accuracy of each seed, and the axes over which the norms average."""
    dense = dict.fromkeys(DENSE, "batch_norm")
    with plotting.figure(path, rows=2, columns=2, height=2.7) as axes:
        accuracies = axes[0]
        panels = zip(accuracies, (dense, CONV), ("three dense layers", "CNN"), strict=True)
        for panel, colours, title in panels:
            values = {name: final(history, name) for name in colours}
            plotting.each_seed(panel, values, colours)
            panel.set(xlabel="test accuracy, % (each seed; mean)", title=title)
            plotting.threshold(panel, x=ENOUGH)
        grid = axes[1, 0].get_gridspec()
        for panel in axes[1]:
            panel.remove()
        colours = {norm: plotting.COLOURS[norm] for norm in NORMS}
        draw_axes(accuracies[0].figure.add_subplot(grid[1, :]), MEANS, colours)


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
