"""The one trainer: a jitted epoch over batches, and what is observed after it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.harness.data import Arrays


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      params: the parameters.
      statistics: the running statistics, the collection `batch_stats`.
      optimizer: the state of the optimizer, its count of steps among it.
      noise: what the next step draws from, for dropout and the like: the data of a key.
    """

    params: Any
    statistics: Any
    optimizer: Any
    noise: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        return {"params": self.params, "batch_stats": self.statistics}


class Arm(NamedTuple):
    """One way to train, to be compared with others.

    Attributes:
      model: called as `model(images, train=...)`; gives logits. In training it may draw
        from the streams `dropout` and `noise`.
      optimizer: of optax.
      observe: `observe(model, variables, data) -> {name: value}`, evaluated after every
        epoch by a jit of its own; the data are `Arrays`.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    observe: Callable[[nn.Module, Any, Arrays], dict[str, jax.Array]]


Step = Callable[..., tuple[TrainState, jax.Array]]
Epoch = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def start(arm: Arm, images: jax.Array, key: jax.Array) -> TrainState:
    """A new state; arms whose parameters have the same names start at the same values.

    Args:
      arm: what is to be trained.
      images: some, of which only the shape counts.
      key: draws the weights, and the noise in training.
    """
    variables = arm.model.init(key, images[:2], train=False)
    params = variables["params"]
    statistics = variables.get("batch_stats", {})
    noise = jax.random.key_data(jax.random.fold_in(key, 1))
    return TrainState(params, statistics, arm.optimizer.init(params), noise)


def make_step(arm: Arm) -> Step:
    """`step(state, batch) -> (state, loss)`, the batch being images and their labels."""

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
    """`epoch(state, data, batches) -> (state, observed)`, in two jits.

    The batches are indices of training samples, (steps, size). Besides what the arm
    observes there are `loss` and `loss_sd`, the mean and standard deviation of the
    batches' losses, and `lost`: the first step whose loss is not finite, or NaN.
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
    """The same, with a call for each step.

    For convolutions: on a CPU, XLA brings those in the body of a loop into no form that
    its fast kernels take, and they are nine times slower there.
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
    """The indices of an epoch's batches, (steps, size), in an order drawn from the key.

    The epoch goes once through the training data, in batches of one size; what is left
    over waits for another epoch's order.
    """
    steps = len(images) // size
    order = jax.random.permutation(key, len(images))[: steps * size]
    return order.reshape(steps, size)


def first_key(seed: int) -> jax.Array:
    """Draws the first weights of a seed."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def order_key(seed: int, epoch: int) -> jax.Array:
    """Draws the order of the batches of an epoch."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)


def accuracy(logits: Any, labels: jax.Array) -> jax.Array:
    """The share of rows whose largest logit is at the label."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


def observe_accuracy(
    model: nn.Module, variables: Any, data: Arrays
) -> dict[str, jax.Array]:
    """Test accuracy, by running statistics where there are any."""
    logits = model.apply(variables, data.test_images, train=False)
    return {"accuracy": accuracy(logits, data.test_labels)}
