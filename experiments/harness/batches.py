"""Which training samples make the batches of a trial."""

from collections.abc import Callable

import numpy as np

from experiments.harness.data import Dataset

Batches = Callable[[np.random.Generator, Dataset], np.ndarray]


def shuffled(rounds: int, steps: int, size: int, samples: int | None = None) -> Batches:
    """Batches that go through the training data in one new order after another.

    Args:
      rounds: how many; the arm is observed after each.
      steps: the batches of a round.
      size: the samples of a batch.
      samples: how many of the training data are used, the first ones; None uses all.

    Returns:
      `batches(rng, data) -> indices`, of shape (rounds, steps, size).
    """

    def batches(rng: np.random.Generator, data: Dataset) -> np.ndarray:
        available = len(data.train_labels) if samples is None else samples
        orders = -(-rounds * steps * size // available)
        order = np.concatenate([rng.permutation(available) for _ in range(orders)])
        return order[: rounds * steps * size].reshape(rounds, steps, size)

    return batches
