"""The one trainer: a jitted epoch over shuffled batches, and what is observed after it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import Dataset
from experiments.runs import Run


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      params: the parameters.
      statistics: the running statistics, the collection `batch_stats`.
      optimizer: the state of the optimizer, its count of steps among it.
    """

    params: Any
    statistics: Any
    optimizer: Any

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.statistics}


class Arm(NamedTuple):
    """One way to train, to be compared with others.

    Attributes:
      model: called as `model(images, train=...)`; gives logits.
      optimizer: of optax.
      observe: `observe(model, variables, images, labels) -> {name: value}`, evaluated on
        the test data after every epoch, inside the same jit.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    observe: Callable[..., dict[str, jax.Array]]


Step = Callable[..., tuple[TrainState, jax.Array]]
Epoch = Callable[..., tuple[TrainState, dict[str, jax.Array]]]
History = dict[str, dict[str, Any]]


def start(arm: Arm, data: Dataset, key: jax.Array) -> TrainState:
    """A new state; arms whose parameters have the same names start at the same values."""
    variables = arm.model.init(key, jnp.asarray(data.train_images[:2]), train=False)
    params = variables["params"]
    return TrainState(params, variables.get("batch_stats", {}), arm.optimizer.init(params))


def make_step(arm: Arm) -> Step:
    """`step(state, batch) -> (state, loss)`, the batch being images and their labels."""

    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array):
        logits, updates = arm.model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates.get("batch_stats", {})

    def step(
        state: TrainState, batch: tuple[jax.Array, jax.Array]
    ) -> tuple[TrainState, jax.Array]:
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.statistics, *batch
        )
        updates, optimizer = arm.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, statistics, optimizer), value

    return step


def make_epoch(arm: Arm, batch_size: int) -> Epoch:
    """Compiles `epoch(state, data, key) -> (state, observations)`.

    The epoch goes once through the training data in an order drawn from the key, in
    batches of one size; what is left over waits for another epoch's order. Besides what
    the arm observes it gives `loss` and `loss_sd`, the mean and standard deviation of
    the batches' losses.
    """
    take_step = make_step(arm)

    @jax.jit
    def epoch(
        state: TrainState, data: tuple[jax.Array, ...], key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        train_images, train_labels, test_images, test_labels = data

        def step(state: TrainState, batch: jax.Array) -> tuple[TrainState, jax.Array]:
            return take_step(state, (train_images[batch], train_labels[batch]))

        state, losses = jax.lax.scan(step, state, batches(key, train_images, batch_size))
        observed = arm.observe(arm.model, state.variables, test_images, test_labels)
        return state, observed | {"loss": jnp.mean(losses), "loss_sd": jnp.std(losses)}

    return epoch


def make_stepwise_epoch(arm: Arm, batch_size: int) -> Epoch:
    """The same, with a call for each step.

    For convolutions: on a CPU, XLA brings those in the body of a loop into no form that
    its fast kernels take, and they are nine times slower there.
    """
    step = jax.jit(make_step(arm))
    observe = jax.jit(functools.partial(arm.observe, arm.model))

    def epoch(
        state: TrainState, data: tuple[jax.Array, ...], key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        train_images, train_labels, *test = data
        losses = []
        for batch in batches(key, train_images, batch_size):
            state, loss = step(state, (train_images[batch], train_labels[batch]))
            losses.append(loss)
        found = jnp.stack(losses)
        observed = observe(state.variables, *test)
        return state, observed | {"loss": jnp.mean(found), "loss_sd": jnp.std(found)}

    return epoch


def batches(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """The indices of an epoch's batches, (steps, size), in an order drawn from the key."""
    steps = len(images) // size
    order = jax.random.permutation(key, len(images))[: steps * size]
    return order.reshape(steps, size)


def first_key(seed: int) -> jax.Array:
    """Draws the first weights of a seed."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def order_key(seed: int, epoch: int) -> jax.Array:
    """Draws the order of the batches of an epoch."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)


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
    """Trains all arms on all seeds, paired: same initial weights, same batches.

    Args:
      run: the folder, which makes it resumable.
      arms: by name.
      data: what they train on and are observed on.
      seeds: how many; the seeds are 0, 1, ….
      epochs: how many for each arm and seed.
      batch_size: the samples of a batch.
      heading: shown above the lines.
      line: `line(history, seed, epoch) -> str`, shown after each epoch of all arms.

    Returns:
      What was observed: `history[arm][name]` has the shape (seeds, epochs, ...).
    """
    epoch_of = {name: make_epoch(arm, batch_size) for name, arm in arms.items()}
    arrays = tuple(map(jnp.asarray, data.arrays))

    def fresh(seed: int) -> dict[str, TrainState]:
        return {name: start(arm, data, first_key(seed)) for name, arm in arms.items()}

    def advance(progress: tuple, step: int) -> tuple:
        states, history = progress
        seed, epoch = divmod(step, epochs)
        states = states if epoch else fresh(seed)
        order = order_key(seed, epoch)
        done = {name: epoch_of[name](states[name], arrays, order) for name in arms}
        observed = {name: each for name, (_, each) in done.items()}
        history = jax.tree.map(lambda h, o: h.at[seed, epoch].set(o), history, observed)
        return {name: state for name, (state, _) in done.items()}, history

    def unknown(state: TrainState, name: str) -> dict[str, jax.Array]:
        _, observed = jax.eval_shape(epoch_of[name], state, arrays, jax.random.key(0))
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
    return jax.tree.map(np.asarray, history)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of rows whose largest logit is at the label."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)
