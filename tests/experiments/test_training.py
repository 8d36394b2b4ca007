"""The trainer: arms are paired, and every seed and epoch is another one."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.data import Dataset
from experiments.runs import Run
from experiments.training import Arm, compare, make_epoch, make_stepwise_epoch, start

pytestmark = pytest.mark.usefixtures("lenient")
SAMPLES, BATCH, SEEDS, EPOCHS = 10, 3, 2, 2
USED = SAMPLES // BATCH * BATCH  # of an epoch; one sample is left over


class Recorder(nn.Module):
    """Keeps each batch's sample numbers, in order, as statistics."""

    @nn.compact
    def __call__(self, x, *, train):
        seen = self.variable("batch_stats", "seen", jnp.zeros, (EPOCHS * USED,))
        if train and not self.is_initializing():
            seen.value = jnp.concatenate([seen.value[BATCH:], x[:, 0]])
        return nn.Dense(3)(x)


def observe(model, variables, images, labels):
    return {
        "seen": variables["batch_stats"]["seen"],
        "kernel": variables["params"]["Dense_0"]["kernel"],
    }


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Two arms that differ in their rate alone; the first never moves."""
    images = np.arange(1.0, SAMPLES + 1, dtype=np.float32)[:, None]
    labels = np.arange(SAMPLES, dtype=np.int32) % 3
    data = Dataset("numbers", (1, 1), images, labels, images, labels)
    arms = {
        name: Arm(Recorder(), optax.sgd(rate), observe)
        for name, rate in (("still", 0.0), ("moving", 0.01))
    }
    return compare(
        Run(tmp_path_factory.mktemp("run"), {}, restart=False),
        arms,
        data,
        seeds=SEEDS,
        epochs=EPOCHS,
        batch_size=BATCH,
        heading="",
        line=lambda history, seed, epoch: "",
    )


def orders(history, arm):
    """The samples in the order of training, (seeds, epochs, samples used)."""
    return history[arm]["seen"][:, -1].reshape(SEEDS, EPOCHS, -1)


def test_arms_see_the_same_batches(history):
    np.testing.assert_array_equal(orders(history, "still"), orders(history, "moving"))


def test_every_seed_and_epoch_has_an_order_of_its_own(history):
    each = orders(history, "still").reshape(SEEDS * EPOCHS, -1)
    assert len({tuple(order) for order in each}) == SEEDS * EPOCHS


def test_an_epoch_uses_each_sample_once_at_most(history):
    for order in orders(history, "still").reshape(SEEDS * EPOCHS, -1):
        assert len(order) == USED
        assert len(set(order)) == len(order)
        assert set(order) <= set(range(1, SAMPLES + 1))


def test_every_seed_starts_at_weights_of_its_own(history):
    first, second = history["still"]["kernel"][:, 0]
    assert (first != second).all()
    moved = history["moving"]["kernel"][:, 0]
    assert (moved != history["still"]["kernel"][:, 0]).any()


def test_loss_and_its_deviation_are_over_the_batches(history):
    for arm in history.values():
        assert arm["loss"].shape == arm["loss_sd"].shape == (SEEDS, EPOCHS)
        assert jax.tree.all(jax.tree.map(lambda each: np.isfinite(each).all(), arm))
        assert (arm["loss_sd"] > 0).all()


def test_an_epoch_step_by_step_is_the_epoch_in_a_loop():
    images = np.arange(1.0, SAMPLES + 1, dtype=np.float32)[:, None] / SAMPLES
    labels = np.arange(SAMPLES, dtype=np.int32) % 3
    data = Dataset("numbers", (1, 1), images, labels, images, labels)
    arm, key = Arm(Recorder(), optax.sgd(0.01), observe), jax.random.key(0)
    arrays = tuple(map(jnp.asarray, data.arrays))
    looped, stepwise = (
        make(arm, BATCH)(start(arm, data, key), arrays, key)
        for make in (make_epoch, make_stepwise_epoch)
    )
    chex.assert_trees_all_close(stepwise, looped, rtol=1e-5)
