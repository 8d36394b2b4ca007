"""The part to copy: training a network with jaxnorm's batch norm on all devices.

In order: the mesh; the rows, with each process loading its own; the functions, as for one
device; the same functions jitted for the mesh; the loop. Each process calls `train` with
the same arguments, after `jax.distributed.initialize`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.harness.console import progress_bar
from experiments.harness.data import Dataset
from experiments.harness.training import TrainState
from experiments.models import SeedNetwork

OPTIMIZER = optax.adam(0.02)


def shardings() -> tuple[NamedSharding, NamedSharding]:
    """Returns shardings over all devices of all processes: replicated, and split by row."""
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("batch"))
    return everywhere, split


def own(rows: np.ndarray) -> np.ndarray:
    """Returns this process's rows; their total must be a multiple of all devices."""
    return np.split(rows, jax.process_count())[jax.process_index()]


def place(split: NamedSharding, *rows: np.ndarray) -> tuple[jax.Array, ...]:
    """Returns global arrays of all processes' rows, given the rows of this process."""
    return tuple(jax.make_array_from_process_local_data(split, each) for each in rows)


def batches(
    data: Dataset, order: np.ndarray, size: int, split: NamedSharding
) -> Iterator[tuple[jax.Array, ...]]:
    """Yields images and labels of each batch in this order, the same in all processes."""
    for first in range(0, len(order) - size + 1, size):
        rows = own(order[first : first + size])
        yield place(split, data.train_images[rows], data.train_labels[rows])


def test_rows(data: Dataset, split: NamedSharding) -> tuple[jax.Array, ...]:
    """Returns the test data, padded with rows whose label −1 is never right."""
    missing = -len(data.test_labels) % jax.device_count()
    images = np.pad(data.test_images, ((0, missing), (0, 0)))
    labels = np.pad(data.test_labels, (0, missing), constant_values=-1)
    return place(split, own(images), own(labels))


def start(model: Any, seed: int, features: int) -> TrainState:
    """Returns a new state."""
    variables = model.init(jax.random.key(seed), jnp.zeros((2, features)), train=False)
    params = variables["params"]
    return TrainState(params, variables["batch_stats"], OPTIMIZER.init(params))


def step(
    model: Any, state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Returns the state after a batch, and its loss: a mean over the whole batch."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.statistics}
        logits, updates = model.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates["batch_stats"]

    (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, moments = OPTIMIZER.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, statistics, moments), value


def correct(
    model: Any, state: TrainState, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """Counts the rows that the network classifies correctly, with running statistics."""
    logits = model.apply(state.variables, images, train=False)
    return jnp.sum(jnp.argmax(logits, axis=-1) == labels)


class Training(NamedTuple):
    """The functions that train, over all devices.

    Attributes:
      start: `start() -> state`, on every device.
      step: `step(state, images, labels) -> (state, loss)`.
      correct: `correct(state, images, labels) -> count`.
    """

    start: Callable[[], TrainState]
    step: Callable[..., tuple[TrainState, jax.Array]]
    correct: Callable[..., jax.Array]


def jitted(data: Dataset, seed: int, everywhere: NamedSharding) -> Training:
    """Returns the training functions for this data; all processes must use the same."""
    # Batch norm needs no `axis_name`: under jit it sees the whole batch.
    model = SeedNetwork((*SeedNetwork.widths[:-1], data.classes))
    features = data.train_images.shape[1]
    # Explicit, or XLA might choose to split the parameters.
    jit = partial(jax.jit, out_shardings=everywhere)
    return Training(
        jit(partial(start, model, seed, features)),
        jit(partial(step, model), donate_argnums=0),
        jit(partial(correct, model)),
    )


class Trained(NamedTuple):
    """The result of training, the same in each process.

    Attributes:
      state: the final state.
      losses: the loss of each step.
      accuracies: test accuracy after each epoch, with running statistics.
    """

    state: TrainState
    losses: np.ndarray
    accuracies: np.ndarray


def train(data: Dataset, *, seed: int, epochs: int, steps: int, batch_size: int) -> Trained:
    """Trains with all processes, for epochs of `steps` steps, each in a new order."""
    everywhere, split = shardings()
    training = jitted(data, seed, everywhere)
    test = test_rows(data, split)
    state, losses, accuracies = training.start(), [], []
    with progress_bar() as progress:
        progress.console.print(" epoch    loss  test accuracy, %, by running statistics")
        task = progress.add_task("training", total=epochs * steps)
        for epoch in range(epochs):
            random = np.random.default_rng((seed, epoch))  # the same in all processes
            order = random.permutation(len(data.train_labels))[: steps * batch_size]
            for batch in batches(data, order, batch_size, split):
                state, loss = training.step(state, *batch)
                losses.append(loss)
                progress.advance(task)
            accuracies.append(int(training.correct(state, *test)) / len(data.test_labels))
            reached, mean = f"{epoch + 1}/{epochs}", np.mean(losses[-steps:])
            progress.console.print(f"{reached:>6} {mean:7.4f} {100 * accuracies[-1]:7.1f}")
    return Trained(state, np.array(losses), np.array(accuracies))
