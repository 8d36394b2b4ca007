"""Batch norm trains deep networks of sigmoids, whose gradients vanish without it.

Rows 14, 18, 22 and 23 of the claims. The derivative σ′ of a sigmoid with inputs from
N(−6, 1) is compared with inputs from N(0, 1). Then networks of 2 to 12 layers of 100
sigmoids are trained by plain SGD: plain, with the proposed remedies for vanishing gradients
(batch norm, layer norm, dropout, skip connections), and with relu in place of the sigmoid;
the arms start at the same weights and see the same batches. The norm of the gradient at
those weights is measured for each layer.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from rich.table import Table

from experiments.harness import options, plotting
from experiments.harness.batches import shuffled
from experiments.harness.comparing import History, Trial, at_rate, sweep
from experiments.harness.data import Dataset
from experiments.harness.results import make_table, mean_sd
from experiments.harness.runs import Run
from experiments.harness.study import Study
from experiments.harness.training import Arm, observe_accuracy
from experiments.models import Deep, batch_norm, layer_norm
from experiments.studies.saturation import slope
from experiments.studies.saturation.claims import (
    CHANCE,
    DEPTHS,
    LABELS,
    TRAINED,
    accuracies,
    at_rest,
    depths_of,
    gradients,
    trial_name,
    verdicts,
)

NAME = "saturation"
WIDTH = 100
STEPS = {False: 200, True: 20}  # per round
ROUNDS = 5
RATE = 0.1
SIGMOIDS: dict[str, Any] = {"activation": nn.sigmoid}
ARMS: dict[str, dict[str, Any]] = {
    "plain": SIGMOIDS,
    "batch_norm": SIGMOIDS | {"norm": batch_norm},
    "layer_norm": SIGMOIDS | {"norm": layer_norm},
    "sigmoid, dropout": SIGMOIDS | {"dropout": 0.2},
    "skip": SIGMOIDS | {"skip": True},
    "relu": {"activation": nn.relu},
}
LINES = {"sigmoid, dropout": "--"}  # it coincides with the curve without dropout


def observe_gradient(model, variables, data) -> dict[str, jax.Array]:
    """Returns test accuracy, and the gradient norm of each layer's weights."""
    images, labels = data.train_images[:256], data.train_labels[:256]

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply(
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    gradient = jax.grad(loss)(variables["params"])
    layers = [f"Dense_{layer}" for layer in range(len(model.widths) + 1)]
    norms = [jnp.linalg.norm(gradient[layer]["kernel"]) for layer in layers]
    return observe_accuracy(model, variables, data) | {"gradient": jnp.stack(norms)}


def measure(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains each arm at each depth, and the deepest once at a rate of 0, untrained."""
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    steps, depths = STEPS[chosen.quick], DEPTHS[chosen.quick]
    batches = shuffled(rounds=ROUNDS, steps=steps, size=64)
    few = shuffled(rounds=1, steps=steps, size=64)
    trials = {}
    for name, choices in ARMS.items():
        for depth in depths:
            model = Deep((WIDTH,) * depth, dataset.classes, **choices)
            deepest = depth == max(depths)
            arm = Arm(model, optimizer, observe_gradient if deepest else observe_accuracy)
            trials[trial_name(name, depth)] = Trial(arm, batches, at_rate(RATE))
            if deepest:
                trials[at_rest(name)] = Trial(arm, few, at_rate(0.0))

    return sweep(run, trials, dataset, seeds=chosen.seeds)


def table(history: History) -> Table:
    """Tabulates test accuracy by depth."""
    drawn = make_table(
        "",
        *(f"{depth} layers" for depth in depths_of(history)),
        title="test accuracy in %, mean ± sd over seeds; 0 where training diverged",
    )
    for arm, label in LABELS.items():
        drawn.add_row(
            label, *(mean_sd(of_depth) for of_depth in accuracies(history, arm).T)
        )
    return drawn


def draw(history: History, path: Path) -> None:
    """Draws the sigmoid's gradient, accuracy by depth, and gradients by layer."""
    depths, number = depths_of(history), plotting.seeds(accuracies(history, "plain"))
    layers = range(1, max(depths) + 2)
    with plotting.figure(path, rows=2, columns=2, height=3.6) as axes:
        slope.draw_inputs(axes[0, 0])
        slope.draw_histogram(axes[0, 1])
        reached, norms = axes[1]
        for arm, label in LABELS.items():
            shown = {
                "arm": arm,
                "label": label,
                "marker": "o",
                "ms": 4,
                "ls": LINES.get(arm, "-"),
            }
            plotting.over_seeds(norms, layers, gradients(history, arm), **shown)
            plotting.over_seeds(reached, depths, accuracies(history, arm), **shown)
        plotting.threshold(reached, y=TRAINED)
        plotting.threshold(reached, y=CHANCE)
        reached.set(title="Test accuracy after training", ylabel="%", ylim=(0, 100))
        reached.set(xticks=depths, xlabel=f"hidden layers ({number})")
        norms.set(title="Gradient before training", ylabel="norm", yscale="log")
        norms.set_xlabel(f"layer of {len(layers)}, from the input")
        handles = norms.get_legend_handles_labels()
        norms.figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=10)


STUDY = Study(NAME, options.parser(NAME, __doc__ or ""), measure, verdicts, table, draw)
