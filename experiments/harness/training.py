"""The trainer: a jitted epoch over batches, and the observations after it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.harness.data import Arrays


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
      params: the parameters.
      statistics: the running statistics, the collection `batch_stats`.
      optimizer: the state of the optimizer, including its step count.
      noise: the key data for dropout and other noise in the next step.
    """

    params: Any
    statistics: Any
    optimizer: Any
    noise: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.statistics}


class Arm(NamedTuple):
    """A way to train, to be compared with others.

    Attributes:
      model: called as `model(images, train=...)`; returns logits. In training it may draw
        from the streams `dropout` and `noise`.
      optimizer: an optax optimizer.
      observe: `observe(model, variables, data) -> {name: value}`, evaluated after every
        epoch in its own jit; the data are `Arrays`.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    observe: Callable[[nn.Module, Any, Arrays], dict[str, jax.Array]]


Step = Callable[..., tuple[TrainState, jax.Array]]
Epoch = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def start(arm: Arm, images: jax.Array, key: jax.Array) -> TrainState:
    """Returns a new state; parameters with the same names in other arms start equal.

    Args:
      arm: the arm to train.
      images: any images; only the shape matters.
      key: for the initial weights and the noise in training.
    """
    variables = arm.model.init(key, images[:2], train=False)
    params = variables["params"]
    statistics = variables.get("batch_stats", {})
    noise = jax.random.key_data(jax.random.fold_in(key, 1))
    return TrainState(params, statistics, arm.optimizer.init(params), noise)


def make_step(arm: Arm) -> Step:
    """Returns `step(state, batch) -> (state, loss)`; a batch is images and their labels."""

    def loss(params: Any, statistics: Any, noise: jax.Array, images: Any, labels: Any):
        logits, updates = arm.model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": noise, "noise": noise},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates.get("batch_stats", {})

    def step(
        state: TrainState, batch: tuple[jax.Array, jax.Array]
    ) -> tuple[TrainState, jax.Array]:
        later, noise = jax.random.split(jax.random.wrap_key_data(state.noise))
        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.statistics, noise, *batch
        )
        updates, optimizer = arm.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, statistics, optimizer, jax.random.key_data(later)), value

    return step


def make_epoch(arm: Arm) -> Epoch:
    """Returns `epoch(state, data, batches) -> (state, observed)`, in two jits.

    The batches are indices of training samples, (steps, size). In addition to the arm's
    observations there are `loss` and `loss_sd`, the mean and standard deviation of the
    batch losses, and `lost`: the first step with a non-finite loss, or NaN.
    """
    take_step = make_step(arm)

    @jax.jit
    def train(
        state: TrainState, data: Arrays, batches: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def step(state: TrainState, batch: jax.Array) -> tuple[TrainState, jax.Array]:
            return take_step(state, (data.train_images[batch], data.train_labels[batch]))

        return jax.lax.scan(step, state, batches)

    return _observed(arm, train)


def make_stepwise_epoch(arm: Arm) -> Epoch:
    """Same as `make_epoch`, but with a call for each step.

    For convolutions: in the body of a loop, XLA:CPU does not bring them into the form
    that its fast kernels need, and they are nine times slower.
    """
    step = jax.jit(make_step(arm))

    def train(
        state: TrainState, data: Arrays, batches: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        losses = []
        for batch in batches:
            batch = (data.train_images[batch], data.train_labels[batch])
            state, loss = step(state, batch)
            losses.append(loss)
        return state, jnp.stack(losses)

    return _observed(arm, train)


def _observed(arm: Arm, train: Callable[..., tuple[TrainState, jax.Array]]) -> Epoch:
    observe = jax.jit(functools.partial(arm.observe, arm.model))

    def epoch(
        state: TrainState, data: Arrays, batches: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        state, losses = train(state, data, batches)
        return state, observe(state.variables, data) | {
            "loss": jnp.mean(losses),
            "loss_sd": jnp.std(losses),
            "lost": _first(~jnp.isfinite(losses)),
        }

    return epoch


def _first(true: jax.Array) -> jax.Array:
    return jnp.where(true.any(), jnp.argmax(true).astype(jnp.float32), jnp.nan)


def shuffled(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Returns the indices of an epoch's batches, (steps, size), in a random order.

    The epoch passes once through the training data in batches of equal size; samples left
    over are skipped until another epoch's order includes them.
    """
    steps = len(images) // size
    order = jax.random.permutation(key, len(images))[: steps * size]
    return order.reshape(steps, size)


def first_key(seed: int) -> jax.Array:
    """Returns the key for the initial weights of a seed."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def order_key(seed: int, epoch: int) -> jax.Array:
    """Returns the key for the order of the batches in an epoch."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)


def accuracy(logits: Any, labels: jax.Array) -> jax.Array:
    """Returns the share of rows whose largest logit is at the label."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


def observe_accuracy(
    model: nn.Module, variables: Any, data: Arrays
) -> dict[str, jax.Array]:
    """Returns the test accuracy, with running statistics if the model has them."""
    logits = model.apply(variables, data.test_images, train=False)
    return {"accuracy": accuracy(logits, data.test_labels)}
