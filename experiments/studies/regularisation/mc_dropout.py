"""Draws predictions with dropout left on, and describes how far they differ."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.harness.training import accuracy


def draw_predictions(
    model: nn.Module, variables: Any, images: Any, draws: int
) -> jax.Array:
    """Returns probabilities, (draws, samples, classes); each draw drops other units.

    For models in which training mode changes only the dropout.
    """

    def draw(key: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, images, train=True, rngs={"dropout": key})
        return jax.nn.softmax(logits)

    return jax.vmap(draw)(jax.random.split(jax.random.key(0), draws))


def describe_draws(draws: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Describes how predictions differ between draws.

    Args:
      draws: predictions from `draw_predictions`.
      labels: the labels of the samples.

    Returns:
      drawn: the accuracy of the mean prediction.
      right, wrong: the standard deviation over draws of the probability of the class that
        is likeliest in the mean, averaged over the samples where that class is right or
        wrong; NaN if there are no such samples.
    """
    mean = draws.mean(axis=0)
    answers = jnp.argmax(mean, axis=-1)
    spread = jnp.std(draws, axis=0, ddof=1)[jnp.arange(len(answers)), answers]
    right = answers == labels
    return {
        "drawn": accuracy(mean, labels),
        "right": jnp.mean(spread, where=right),
        "wrong": jnp.mean(spread, where=~right),
    }
