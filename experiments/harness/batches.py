"""How the batches of a trial are chosen from the training samples."""

from collections.abc import Callable

import numpy as np

from experiments.harness.data import Dataset

Batches = Callable[[np.random.Generator, Dataset], np.ndarray]


def shuffled(rounds: int, steps: int, size: int, samples: int | None = None) -> Batches:
    """Draws batches by passing through the training data, reshuffled for every pass.

    Args:
      rounds: number of rounds; the arm is observed after each.
      steps: number of batches per round.
      size: number of samples per batch.
      samples: use only the first so many training samples; None uses all.

    Returns:
      `batches(rng, data) -> indices`, of shape (rounds, steps, size).
    """

    def batches(rng: np.random.Generator, data: Dataset) -> np.ndarray:
        available = len(data.train_labels) if samples is None else samples
        orders = -(-rounds * steps * size // available)
        order = np.concatenate([rng.permutation(available) for _ in range(orders)])
        return order[: rounds * steps * size].reshape(rounds, steps, size)

    return batches
