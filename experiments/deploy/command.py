"""The command: trains a seed, folds and measures it, and goes on with the next."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnorm
from experiments import deploy, options
from experiments.console import console, exit_status
from experiments.data import Dataset
from experiments.deploy import findings
from experiments.deploy.measuring import FORMS, make_forms, measure, quantities
from experiments.models import Residual
from experiments.results import show
from experiments.runs import Run
from experiments.study import describe
from experiments.training import (
    Arm,
    History,
    TrainState,
    accuracy,
    first_key,
    make_stepwise_epoch,
    order_key,
    start,
)

NAME = "deploy"
RATE = 3e-3
ESTIMATOR = jaxnorm.ema(0.99, warmup=True)


class Progress(NamedTuple):
    """What a run that is stopped goes on with.

    Attributes:
      state: of the seed that is trained.
      history: of all seeds, by forms and quantities, and in `training` of each epoch;
        NaN where it is not known yet.
    """

    state: TrainState
    history: History


def observe(model, variables, images, labels) -> dict[str, jax.Array]:
    """Accuracy by the running statistics."""
    return {"running": accuracy(model.apply(variables, images, train=False), labels)}


def make_arm(dataset: Dataset, epochs: int, steps: int) -> Arm:
    """The network in float32, whose rate falls to 0; an epoch has that many steps."""
    rate = optax.cosine_decay_schedule(RATE, epochs * steps)
    model = Residual(dataset.classes, estimator=ESTIMATOR)
    return Arm(model, optax.adam(rate), observe)


def measure_all(run: Run, arm: Arm, dataset: Dataset, chosen: Any) -> History:
    """Trains all seeds, and folds and measures each behind its last epoch."""
    epochs, seeds = chosen.epochs, chosen.seeds
    train_epoch = make_stepwise_epoch(arm, chosen.batch_size)
    arrays = tuple(map(jnp.asarray, dataset.arrays))

    def advance(progress: Progress, step: int) -> Progress:
        seed, epoch = divmod(step, epochs)
        state, history = progress
        state = state if epoch else start(arm, dataset, first_key(seed))
        state, observed = train_epoch(state, arrays, order_key(seed, epoch))
        history = history | {
            "training": noted(history["training"], (seed, epoch), observed)
        }
        if epoch == epochs - 1:
            for name, found in folded(arm, state, arrays[2:], seed).items():
                history[name] = noted(history[name], seed, found)
        return Progress(state, history)

    _, history = run.fold(
        advance,
        Progress(start(arm, dataset, first_key(0)), unknown(seeds, epochs)),
        seeds * epochs,
        findings.HEADING,
        lambda progress, step: findings.line(progress.history, *divmod(step, epochs)),
    )
    return jax.tree.map(np.asarray, history)


def folded(
    arm: Arm, state: TrainState, test: tuple[jax.Array, ...], seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """What is measured of each form of a trained network; seed 0 says what went where."""
    forms, report = make_forms(arm.model, state.variables, test[0])
    if seed == 0:
        console.print(str(report))
    return measure(forms, *test)


def unknown(seeds: int, epochs: int) -> History:
    """The history before anything is measured."""
    training = dict.fromkeys(("running", "loss", "loss_sd"), (epochs,))
    shapes = {"training": training} | dict.fromkeys(FORMS, quantities())
    return {
        form: {name: jnp.full((seeds, *shape), jnp.nan) for name, shape in of.items()}
        for form, of in shapes.items()
    }


def noted(history: dict[str, Any], where: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The history with what was found of a seed, or of a seed and epoch."""
    return {name: each.at[where].set(found[name]) for name, each in history.items()}


def parser() -> options.Parser:
    """The options of this experiment."""
    return options.parser(NAME, deploy.__doc__ or "", epochs=4, batch_size=64)


def main(arguments: Sequence[str]) -> int:
    """The status of the process: 0, or 2 if refused, or 130 if interrupted."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    """Measures, or goes on measuring, or shows what is finished."""
    chosen = parser().parse_args(arguments)
    dataset = options.open_data(chosen)
    run = options.open_run(NAME, chosen, dataset)
    steps = len(dataset.train_labels) // chosen.batch_size
    arm = make_arm(dataset, chosen.epochs, steps)
    console.print(describe({"residual": arm}, dataset.maps))
    history: Any = run.measurements
    if history is None:
        history = measure_all(run, arm, dataset.maps, chosen)
        run.finish(history, [each.as_dict() for each in findings.verdicts(history)])
    else:
        console.print("this run is finished already; --restart trains again")
    findings.draw(history, run.figure)
    show(findings.table(history), findings.verdicts(history), run)
