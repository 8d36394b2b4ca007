"""Compares arms on the same seeds, either side by side or one after another."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.data import Dataset
from experiments.harness.results import mean_sd
from experiments.harness.runs import Run
from experiments.harness.training import (
    Arm,
    Epoch,
    TrainState,
    first_key,
    make_epoch,
    order_key,
    shuffled,
    start,
)

History = dict[str, dict[str, Any]]  # by arm and observed name: (seeds, epochs, …)


def compare(
    run: Run,
    arms: dict[str, Arm],
    data: Dataset,
    *,
    seeds: int,
    epochs: int,
    batch_size: int,
    heading: str,
    line: Callable[[History, int, int], str],
) -> History:
    """Trains all arms side by side on all seeds, with the same initial weights and batches.

    Args:
      run: the run's folder; it makes the comparison resumable after any epoch.
      arms: the arms, by name.
      data: the data to train and evaluate on.
      seeds: number of seeds; they are 0, 1, ….
      epochs: number of epochs for each arm and seed.
      batch_size: number of samples per batch.
      heading: shown above the lines.
      line: `line(history, seed, epoch) -> str`, shown after each epoch of all arms.

    Returns:
      The observations: `history[arm][name]` has the shape (seeds, epochs, ...); divergence
      is recorded as in `sweep`.
    """
    epoch_of = {name: make_epoch(arm) for name, arm in arms.items()}
    arrays = jax.tree.map(jnp.asarray, data.arrays)
    steps = len(data.train_labels) // batch_size

    def fresh(seed: int) -> dict[str, TrainState]:
        key = first_key(seed)
        return {name: start(arm, arrays.train_images, key) for name, arm in arms.items()}

    def advance(progress: tuple, step: int) -> tuple:
        states, history = progress
        seed, epoch = divmod(step, epochs)
        states = states if epoch else fresh(seed)
        batches = shuffled(order_key(seed, epoch), arrays.train_images, batch_size)
        done = {name: epoch_of[name](states[name], arrays, batches) for name in arms}
        observed = {name: each for name, (_, each) in done.items()}
        history = jax.tree.map(lambda h, o: h.at[seed, epoch].set(o), history, observed)
        return {name: state for name, (state, _) in done.items()}, history

    def unknown(state: TrainState, name: str) -> dict[str, jax.Array]:
        batches = shuffled(order_key(0, 0), arrays.train_images, batch_size)
        _, observed = jax.eval_shape(epoch_of[name], state, arrays, batches)
        return jax.tree.map(
            lambda o: jnp.full((seeds, epochs, *o.shape), jnp.nan, o.dtype), observed
        )

    states = fresh(0)
    history = {name: unknown(state, name) for name, state in states.items()}
    _, history = run.fold(
        advance,
        (states, history),
        seeds * epochs,
        heading,
        lambda progress, step: line(progress[1], *divmod(step, epochs)),
    )
    return {
        name: jax.tree.map(
            lambda *each: np.stack(each),
            *(_of_seed(observed, seed, steps) for seed in range(seeds)),
        )
        for name, observed in history.items()
    }


def _of_seed(
    observed: dict[str, jax.Array], seed: int, steps: int
) -> dict[str, np.ndarray]:
    of_seed = {name: np.asarray(each[seed]) for name, each in observed.items()}
    return without_what_diverged(of_seed, steps)


class Trial(NamedTuple):
    """An arm of a sweep. Trials that share an `Arm` compile it once.

    Attributes:
      arm: the part that is compiled.
      batches: `batches(rng, data) -> indices` of training samples, of shape (rounds, steps
        per round, samples per batch); the arm is observed after each round. All trials of
        a seed receive a generator in the same initial state.
      prepare: changes values in the initial state, as `at_rate` does.
    """

    arm: Arm
    batches: Callable[[np.random.Generator, Dataset], np.ndarray]
    prepare: Callable[[TrainState], TrainState] = lambda state: state


def at_rate(rate: float) -> Callable[[TrainState], TrainState]:
    """Sets the learning rate of an optimizer made by `optax.inject_hyperparams`."""

    def prepare(state: TrainState) -> TrainState:
        rates = state.optimizer.hyperparams | {"learning_rate": jnp.float32(rate)}
        return state._replace(optimizer=state.optimizer._replace(hyperparams=rates))

    return prepare


HEADING = f"{'trial':>32}  test accuracy, %"


def show_accuracy(name: str, observed: dict[str, np.ndarray]) -> str:
    """Returns a trial's line: its final test accuracy."""
    return f"{name:>32}  {mean_sd(100 * observed['accuracy'][:, -1])}"


def sweep(
    run: Run,
    trials: dict[str, Trial],
    data: Dataset,
    *,
    seeds: int,
    heading: str = HEADING,
    line: Callable[[str, dict[str, np.ndarray]], str] = show_accuracy,
    make_epoch: Callable[[Arm], Epoch] = make_epoch,
) -> History:
    """Trains one trial after another, each on all seeds with the same initial weights.

    The seeds are trained at the same time, one thread per seed: a small network keeps only
    one core busy. (With vmap, training is no faster than one seed after another, and
    compilation takes twice as long.)

    Args:
      run: the run's folder; it makes the sweep resumable after any trial.
      trials: the trials, by name.
      data: the data to train and evaluate on.
      seeds: number of seeds; they are 0, 1, ….
      heading: shown above the lines.
      line: `line(name, observed) -> str`, shown after each trial.
      make_epoch: pass `make_stepwise_epoch` for convolutional models.

    Returns:
      The observations: `history[trial][name]` has the shape (seeds, rounds, ...), and is
      NaN from the first round with a non-finite loss. `diverged`, of shape (seeds,), is
      the step of the first non-finite loss, or NaN.
    """
    arrays = jax.tree.map(jnp.asarray, data.arrays)

    compiled = functools.cache(make_epoch)

    def train(trial: Trial, seed: int) -> dict[str, np.ndarray]:
        epoch = compiled(trial.arm)
        # Not jitted: compiling it for an arm takes 2 s, running it op by op .1 s.
        state = start(trial.arm, arrays.train_images, first_key(seed))
        state = trial.prepare(state)
        rounds = trial.batches(np.random.default_rng(seed), data)
        observed = []
        for batches in rounds:
            state, each = epoch(state, arrays, jnp.asarray(batches))
            observed.append(each)
        found = jax.tree.map(lambda *each: np.stack(each), *observed)
        return without_what_diverged(found, rounds.shape[1])

    def train_all(trial: Trial) -> dict[str, np.ndarray]:
        compiled(trial.arm)  # fill the cache before the threads need it
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            each = list(threads.map(functools.partial(train, trial), range(seeds)))
        return jax.tree.map(lambda *each: np.stack(each), *each)

    parts = {name: functools.partial(train_all, trial) for name, trial in trials.items()}
    return run.collect(parts, heading, line)


def without_what_diverged(
    observed: dict[str, np.ndarray], steps: int
) -> dict[str, np.ndarray]:
    """Sets values to NaN once training diverged, and replaces `lost` by `diverged`.

    `diverged` is the step of the first non-finite loss.

    Args:
      observed: the observations of one seed, with rounds as the first axis.
      steps: number of steps per round.
    """
    lost = np.isfinite(observed["lost"])
    gone = np.logical_or.accumulate(lost)
    kept = {name: each for name, each in observed.items() if name != "lost"}
    for name, each in kept.items():
        hidden = gone.reshape(-1, *[1] * (each.ndim - 1))
        kept[name] = np.where(hidden, np.nan, np.asarray(each, float))
    first = lost.argmax()
    when = first * steps + observed["lost"][first] if lost.any() else np.nan
    return kept | {"diverged": np.asarray(when, float)}
