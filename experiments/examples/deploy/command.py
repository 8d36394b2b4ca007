"""The command: trains, folds and measures one seed after another."""

from argparse import Namespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnorm
from experiments.examples import deploy
from experiments.examples.deploy import findings
from experiments.examples.deploy.measuring import FORMS, make_forms, measure, quantities
from experiments.harness import options
from experiments.harness.comparing import History
from experiments.harness.console import console
from experiments.harness.data import Dataset
from experiments.harness.runs import Run
from experiments.harness.study import Study, describe
from experiments.harness.training import (
    Arm,
    TrainState,
    accuracy,
    first_key,
    make_stepwise_epoch,
    order_key,
    shuffled,
    start,
)
from experiments.models import Residual

NAME = "deploy"
RATE = 3e-3
ESTIMATOR = jaxnorm.ema(0.99, warmup=True)


class Progress(NamedTuple):
    """The state from which an interrupted run resumes.

    Attributes:
      state: the training state of the current seed.
      history: the results of all seeds, by form and quantity, and for each epoch in
        `training`; NaN where not yet known.
    """

    state: TrainState
    history: History


def observe(model, variables, data) -> dict[str, jax.Array]:
    """Returns accuracy with the running statistics."""
    logits = model.apply(variables, data.test_images, train=False)
    return {"running": accuracy(logits, data.test_labels)}


def make_arm(dataset: Dataset, epochs: int, steps: int) -> Arm:
    """Returns the float32 network, with a rate that falls to 0; `steps` is per epoch."""
    rate = optax.cosine_decay_schedule(RATE, epochs * steps)
    model = Residual(dataset.classes, estimator=ESTIMATOR)
    return Arm(model, optax.adam(rate), observe)


def measure_all(run: Run, dataset: Dataset, chosen: Namespace) -> History:
    """Trains all seeds, and folds and measures each after its last epoch."""
    epochs, seeds, size = chosen.epochs, chosen.seeds, chosen.batch_size
    arm = make_arm(dataset, epochs, len(dataset.train_labels) // size)
    console.print(describe({"residual": arm}, dataset.maps))
    train_epoch = make_stepwise_epoch(arm)
    arrays = jax.tree.map(jnp.asarray, dataset.maps.arrays)

    def fresh(seed: int) -> TrainState:
        return start(arm, arrays.train_images, first_key(seed))

    def advance(progress: Progress, step: int) -> Progress:
        seed, epoch = divmod(step, epochs)
        state, history = progress
        state = state if epoch else fresh(seed)
        batches = shuffled(order_key(seed, epoch), arrays.train_images, size)
        state, observed = train_epoch(state, arrays, batches)
        history = history | {
            "training": noted(history["training"], (seed, epoch), observed)
        }
        if epoch == epochs - 1:
            for name, found in folded(arm, state, arrays[2:], seed).items():
                history[name] = noted(history[name], seed, found)
        return Progress(state, history)

    _, history = run.fold(
        advance,
        Progress(fresh(0), unknown(seeds, epochs)),
        seeds * epochs,
        findings.HEADING,
        lambda progress, step: findings.line(progress.history, *divmod(step, epochs)),
    )
    return jax.tree.map(np.asarray, history)


def folded(
    arm: Arm, state: TrainState, test: tuple[jax.Array, ...], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Measures each form of a trained network; seed 0 also prints what was folded."""
    forms, report = make_forms(arm.model, state.variables, test[0])
    if seed == 0:
        console.print(str(report))
    return measure(forms, *test)


def unknown(seeds: int, epochs: int) -> History:
    """Returns the history before anything is measured."""
    training = dict.fromkeys(("running", "loss", "loss_sd", "lost"), (epochs,))
    shapes = {"training": training} | dict.fromkeys(FORMS, quantities())
    return {
        form: {name: jnp.full((seeds, *shape), jnp.nan) for name, shape in of.items()}
        for form, of in shapes.items()
    }


def noted(history: dict[str, Any], where: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Adds the results of a seed, or of a seed and epoch, to the history."""
    return {name: each.at[where].set(found[name]) for name, each in history.items()}


STUDY = Study(
    NAME,
    options.parser(NAME, deploy.__doc__ or "", epochs=(4, 2), batch_size=(64, 64)),
    measure_all,
    findings.verdicts,
    findings.table,
    findings.draw,
)
