"""Predictions with dropout left on: how they are drawn, and how far they differ."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.harness.training import accuracy


def draw_predictions(
    model: nn.Module, variables: Any, images: Any, draws: int
) -> jax.Array:
    """Probabilities with other units dropped in each draw, (draws, samples, classes).

    Of a model whose dropout is all that training changes.
    """

    def draw(key: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, images, train=True, rngs={"dropout": key})
        return jax.nn.softmax(logits)

    return jax.vmap(draw)(jax.random.split(jax.random.key(0), draws))


def describe_draws(draws: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """How predictions differ over draws.

    Args:
      draws: as `draw_predictions` gives them.
      labels: those of the samples.

    Returns:
      drawn: the accuracy of their mean.
      right, wrong: the standard deviation over draws of the probability of the class that
        the mean finds likeliest, averaged over the samples of which this is right or not;
        NaN where there are none.
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
