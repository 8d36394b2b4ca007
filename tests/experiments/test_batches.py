import numpy as np
import pytest

from experiments.harness.batches import shuffled
from experiments.harness.data import Dataset

ROUNDS, STEPS, SIZE = 4, 5, 3


@pytest.fixture
def data():
    images = np.zeros((12, 1), np.float32)
    labels = np.arange(12, dtype=np.int32) % 3
    return Dataset("zeros", (1, 1), images, labels, images, labels)


def test_shuffled_batches_go_through_the_data_in_one_new_order_after_another(data, rng):
    batches = shuffled(ROUNDS, STEPS, SIZE)(rng, data)
    assert batches.shape == (ROUNDS, STEPS, SIZE)
    orders = batches.ravel()[:48].reshape(4, 12)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(12), (4, 1)))
    assert (orders[0] != orders[1]).any()


def test_shuffled_batches_are_drawn_from_the_first_samples_alone(data, rng):
    batches = shuffled(ROUNDS, STEPS, SIZE, samples=6)(rng, data)
    np.testing.assert_array_equal(np.unique(batches), np.arange(6))
