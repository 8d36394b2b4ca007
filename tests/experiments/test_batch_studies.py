"""The studies of batch composition: their thresholds and their arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm
import jaxnorm.linen as jn
from experiments.models import Deep, batch_renorm
from experiments.studies import batch_size, ghost, non_iid, regularisation
from experiments.studies.regularisation import mc_dropout

SEEDS = 5


def words(verdicts):
    return [each.word for each in verdicts]


def of_seeds(percent):
    """The same share for each of five seeds, after one round."""
    return np.broadcast_to(np.asarray(percent, float) / 100, (SEEDS,))[:, None]


def batch_sizes(**changed):
    """A history in which all norms end at 93 %, except for those named `NORM_SIZE_seen`."""
    seen = ("accuracy", "recalibrated", "train, batch", "train, running")
    history = {
        batch_size.trial_name(norm, size): {each: of_seeds(93) for each in seen}
        for norm in batch_size.LABELS
        for size in batch_size.SIZES[False]
    }
    for trial, percent in changed.items():
        norm, size, *rest = trial.rsplit("__")
        name = batch_size.trial_name(norm, int(size))
        history[name][rest[0] if rest else "accuracy"] = of_seeds(percent)
    return history


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch_norm__2": 77.9, "batch_norm__2__recalibrated": 77.9}, "PPPPPF"),
        ({"batch_norm__2": 78.1, "batch_norm__2__recalibrated": 78.1}, "FFPPPF"),
        ({"batch_norm__2": [50, 50, 50, 50, 90]}, "FFPPPF"),
        ({"batch_norm__2": np.nan}, "OFPPPF"),
        ({"batch_norm__16": np.nan, "group_norm__16": np.nan}, "FFOPPF"),
        ({"group_norm__2": np.nan, "group_norm__32": np.nan}, "OOPOOF"),
        ({"batch_norm__16": 90.9, "batch_norm__32": 95.1}, "FFFFPF"),
        ({"batch_norm__16": 91.1, "batch_norm__32": 94.9}, "FFPPPF"),
        ({"group_norm__32": 90.9}, "FFPFFF"),
        ({"batch_norm__2__train, batch": [95, 96, 95, 96, 95]}, "FFPPPP"),
    ],
)
def test_the_thresholds_of_batch_size(changed, expected):
    found = words(batch_size.verdicts(batch_sizes(**changed)))
    assert "".join(word[0] for word in found) == expected


def test_the_rate_grows_with_the_batch_up_to_a_limit():
    rates = [batch_size.rate_of(size) for size in (2, 32, 64, 128)]
    np.testing.assert_allclose(rates, [0.1 / 16, 0.1, 0.2, 0.3])


@pytest.mark.slow  # two networks are compiled
def test_statistics_are_recalibrated_by_ghosts_as_by_batches():
    """One call of `observe_batch_norm` agrees with many small batches."""
    x = jax.random.normal(jax.random.key(0), (16, 5))

    def recalibrated(size, batches):
        model = Deep((4, 3), norm=lambda train: jn.BatchNorm(train=train, ghost_size=size))
        variables = model.init(jax.random.key(1), x, train=False)

        def train(variables, images):
            return model.apply(variables, images, train=True, mutable=["batch_stats"])

        return jaxnorm.calibrate(train, variables, batches, progress=False)["batch_stats"]

    jax.tree.map(
        lambda ghosts, batches: np.testing.assert_allclose(ghosts, batches, rtol=1e-5),
        recalibrated(4, [x]),
        recalibrated(None, list(x.reshape(4, 4, 5))),
    )


def test_the_limits_of_batch_renorm_grow_over_the_training():
    limits = batch_renorm(100)(True).limits
    assert tuple(map(float, limits(4))) == (1.0, 0.0)
    assert tuple(map(float, limits(32))) == (3.0, 5.0)


def ghosts(**percent):
    """Test accuracies by arm; training accuracies all end at 100 %."""
    test = {"batch_norm": 92.0, "ghosts of 16": 93.0, "batch of 32": 93.0} | percent
    return {
        arm: {"accuracy": of_seeds(test.get(arm, 92.0)), "train": of_seeds(100)}
        for arm in ghost.ARMS
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ["PASS"] * 3),
        ({"ghosts of 16": 92.0}, ["FAIL", "FAIL", "PASS"]),
        ({"ghosts of 16": [94, 94, 92.1, 91, 91]}, ["FAIL", "FAIL", "PASS"]),
        ({"batch of 32": 91.0}, ["PASS", "PASS", "FAIL"]),
        ({"batch_norm": np.nan}, ["OPEN"] * 3),
    ],
)
def test_the_thresholds_of_ghost(changed, expected):
    assert words(ghost.verdicts(ghosts(**changed))) == expected


def of_classes(batch_norm, layer_norm, renorm, alike):
    first = {"batch_norm": batch_norm, "layer_norm": layer_norm, "batch_renorm": renorm}
    return {
        non_iid.trial_name(norm, classes): {
            "accuracy": of_seeds(first.get(norm, 90) if classes == 1 else 90),
            "alike": of_seeds(alike),
        }
        for norm in non_iid.LABELS
        for classes in non_iid.CLASSES[False]
    }


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        ((29.9, 85.1, 31, 40), ["PASS", "PASS", "PASS", "PASS"]),
        ((30.1, 84.9, 29, 20), ["FAIL", "FAIL", "FAIL", "FAIL"]),
        (([10, 10, 10, 10, 31], 90, 50, 40), ["FAIL", "PASS", "PASS", "PASS"]),
        ((np.nan, np.nan, 50, 40), ["PASS", "FAIL", "PASS", "PASS"]),
    ],
)
def test_the_thresholds_of_non_iid(percent, expected):
    assert words(non_iid.verdicts(of_classes(*percent))) == expected


@pytest.mark.parametrize("classes", non_iid.CLASSES[False])
def test_a_batch_has_as_many_of_each_of_its_classes(classes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 7))
    drawn = labels[
        non_iid.batches_of_classes(np.random.default_rng(1), labels, classes, steps=30)
    ]
    assert drawn.shape == (30, non_iid.BATCH)
    for batch in drawn:
        _, counts = np.unique(batch, return_counts=True)
        np.testing.assert_array_equal(counts, [non_iid.BATCH // classes] * classes)
    turn = drawn[: 10 // classes]
    assert set(turn.flat) == set(range(10))  # all classes take part in each turn


def test_a_sample_of_a_class_is_any_of_it():
    labels = np.repeat(np.arange(2), 6)
    drawn = non_iid.batches_of_classes(np.random.default_rng(0), labels, 1, steps=4)
    assert set(drawn.flat) == set(range(12))


def regularised(wrong=0.3, **test):
    """Test accuracies by arm; accuracies on the training samples all end at 100 %."""
    percent = {
        "plain": 90,
        "batch_norm": 91,
        "dropout": 92,
        "batch_norm, dropout": 93,
        "L2": 90,
        "batch_norm, batch of 16": 92,
        "batch_norm, batch of 256": 90,
    } | test
    sizes = regularisation.SAMPLES[False]
    return {
        regularisation.trial_name(arm, samples): {
            "accuracy": of_seeds(percent[arm]),
            "train": np.ones((SEEDS, 1, len(sizes))),
            "right": of_seeds(20),
            "wrong": of_seeds(100 * wrong),
            "drawn": of_seeds(92),
        }
        for arm in regularisation.ARMS
        for samples in sizes
    }


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, {7}),  # dropout tests better than BN
        ({"batch_norm": 92}, {2}),
        ({"batch_norm": 90}, {1, 7}),
        ({"batch_norm": 89}, {1, 7, 8}),
        ({"dropout": 90}, {0, 2}),
        ({"batch_norm, dropout": 91}, {3, 4, 6, 7}),
        ({"batch_norm, batch of 16": 90}, {5, 7}),
        ({"wrong": 0.2}, {7, 9}),
    ],
)
def test_the_thresholds_of_regularisation(changed, failing):
    found = words(regularisation.verdicts(regularised(**changed)))
    assert {place for place, word in enumerate(found) if word == "FAIL"} == failing
    assert "OPEN" not in found


def test_the_gap_is_that_to_the_samples_trained_with():
    history = regularised()
    for samples, place in ((500, 0), (4_000, 3)):
        trial = history[regularisation.trial_name("plain", samples)]
        trial["train"] = np.zeros((SEEDS, 1, 4))
        trial["train"][..., place] = 0.95
    np.testing.assert_allclose(
        regularisation.gaps(history, "plain")[0], [5, 10, 10, 5], atol=1e-9
    )


def test_draws_are_summed_up_by_their_spread_where_right_and_where_wrong():
    draws = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.7, 0.3], [0.2, 0.8]]])
    found = mc_dropout.describe_draws(jnp.asarray(draws), jnp.array([0, 0]))
    assert found["drawn"] == 0.5
    np.testing.assert_allclose(found["right"], np.std([0.9, 0.7], ddof=1), rtol=1e-6)
    np.testing.assert_allclose(found["wrong"], np.std([0.6, 0.8], ddof=1), rtol=1e-6)
