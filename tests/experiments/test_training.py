"""The trainer, and how arms are compared: paired, with each seed and epoch different."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.harness.batches import shuffled
from experiments.harness.comparing import (
    Trial,
    at_rate,
    compare,
    sweep,
    without_what_diverged,
)
from experiments.harness.data import Dataset
from experiments.harness.runs import Run
from experiments.harness.training import Arm, make_epoch, make_stepwise_epoch, start

pytestmark = pytest.mark.usefixtures("lenient")
SAMPLES, BATCH, SEEDS, EPOCHS = 10, 3, 2, 2
USED = SAMPLES // BATCH * BATCH  # per epoch; one sample is left over
ROUNDS, STEPS = 2, 3  # in a sweep


class Recorder(nn.Module):
    """Stores the sample numbers of each batch, in order, as statistics."""

    @nn.compact
    def __call__(self, x, *, train):
        seen = self.variable("batch_stats", "seen", jnp.zeros, (EPOCHS * USED,))
        if train and not self.is_initializing():
            seen.value = jnp.concatenate([seen.value[BATCH:], x[:, 0]])
        return nn.Dense(3)(x)


def observe(model, variables, data):
    return {
        "seen": variables["batch_stats"]["seen"],
        "kernel": variables["params"]["Dense_0"]["kernel"],
    }


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Two arms that differ only in their rate; the first never moves."""
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
    """Returns the samples in the order of training, (seeds, epochs, samples used)."""
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
        assert np.isnan(arm["diverged"]).all()
        assert all(np.isfinite(arm[name]).all() for name in arm if name != "diverged")
        assert (arm["loss_sd"] > 0).all()


def test_an_epoch_step_by_step_is_the_epoch_in_a_loop():
    images = np.arange(1.0, SAMPLES + 1, dtype=np.float32)[:, None] / SAMPLES
    labels = np.arange(SAMPLES, dtype=np.int32) % 3
    data = Dataset("numbers", (1, 1), images, labels, images, labels)
    arm, key = Arm(Recorder(), optax.sgd(0.01), observe), jax.random.key(0)
    arrays = jax.tree.map(jnp.asarray, data.arrays)
    batches = jnp.arange(2 * BATCH).reshape(2, BATCH)
    looped, stepwise = (
        make(arm)(start(arm, arrays.train_images, key), arrays, batches)
        for make in (make_epoch, make_stepwise_epoch)
    )
    chex.assert_trees_all_close(stepwise, looped, rtol=1e-5)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The first trial never moves, the second does, and the third has a loss of NaN."""
    images = np.arange(1.0, SAMPLES + 1, dtype=np.float32)[:, None]
    labels = np.arange(SAMPLES, dtype=np.int32) % 3
    data = Dataset("numbers", (1, 1), images, labels, images, labels)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    arm = Arm(Recorder(), optimizer, observe)
    compiled = []

    def counted(arm):
        compiled.append(arm)
        return make_epoch(arm)

    trials = {
        str(rate): Trial(arm, shuffled(ROUNDS, STEPS, BATCH), at_rate(rate))
        for rate in (0.0, 0.01, math.inf)
    }
    run = Run(tmp_path_factory.mktemp("run"), {}, restart=False)
    history = sweep(
        *(run, trials, data),
        seeds=SEEDS,
        heading="",
        line=lambda name, found: name,
        make_epoch=counted,
    )
    assert len(compiled) == 1  # the trials share an arm
    return history


def test_trials_see_the_same_batches_and_each_seed_others(swept):
    still, moving = swept["0.0"]["seen"], swept["0.01"]["seen"]
    np.testing.assert_array_equal(still, moving)
    assert (still[0, -1] != still[1, -1]).any()


def test_a_trial_has_its_rate_and_starts_at_the_weights_of_its_seed(swept):
    still, moving = swept["0.0"]["kernel"], swept["0.01"]["kernel"]
    np.testing.assert_array_equal(still[:, 0], still[:, 1])
    assert (still[0] != still[1]).all()
    assert (moving[:, 0] != still[:, 0]).any()
    assert (abs(moving[:, 0] - still[:, 0]) < 1).all()


def test_what_diverges_is_recorded_with_its_step_and_nothing_else(swept):
    assert np.isfinite(swept["0.01"]["loss"]).all()
    assert np.isnan(swept["0.01"]["diverged"]).all()
    lost = swept["inf"]
    assert (lost["diverged"] == 1).all()  # after the first step
    assert np.isnan(lost["loss"]).all()
    assert np.isnan(lost["kernel"]).all()


def test_what_was_observed_is_hidden_from_the_round_on_in_which_the_loss_is_lost():
    observed = {
        "lost": np.array([np.nan, 3.0, np.nan]),
        "accuracy": np.array([0.8, 0.1, 0.1]),
        "layers": np.ones((3, 2)),
    }
    found = without_what_diverged(observed, steps=10)
    assert sorted(found) == ["accuracy", "diverged", "layers"]
    np.testing.assert_array_equal(found["accuracy"], [0.8, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(found["layers"][:, 0]), [False, True, True])
    assert found["diverged"] == 13
