"""Inputs of sigmoids are summarised by formula; the claims hold up to their thresholds."""

import numpy as np
import pytest

from experiments.harness.data import Dataset
from experiments.studies.percentiles import INPUT, binarised, claims, inputs, standardised
from experiments.studies.percentiles.claims import ARMS, SCALES, trial_name


def test_drift_is_the_way_of_the_median_in_widths_of_the_band():
    middle = np.array([0.0, 3.0, -1.0, 2.0])
    width = np.array([1.0, 2.0, 3.0, 2.0])
    bands = np.stack([middle - width / 4, middle, middle + 3 * width / 4], axis=-1)
    np.testing.assert_allclose(inputs.drift(bands[np.newaxis]), [4 / 2])


def test_a_band_that_is_moved_and_scaled_as_a_whole_has_the_same_drift():
    bands = np.sort(np.random.default_rng(0).normal(size=(5, 7, 3, 10, 3)))
    found = inputs.drift(bands)
    assert found.shape == (5, 3, 10)
    np.testing.assert_allclose(inputs.drift(4 * bands + 1), found)


def test_one_band_is_kept_and_the_drift_of_all():
    bands = np.sort(np.random.default_rng(0).normal(size=(5, 7, 3, 10, 3)))
    found = inputs.summed_up({"bands": bands, "loss": np.ones(5)})
    np.testing.assert_array_equal(found["bands"], bands[:, :, :, 0])
    np.testing.assert_allclose(found["drift"], inputs.drift(bands).mean(-1))
    assert set(found) == {"bands", "drift", "loss"}


def images(train, test):
    labels = np.zeros(len(train), np.int32), np.zeros(len(test), np.int32)
    train, test = (np.array(each, np.float32) for each in (train, test))
    return Dataset("drawn", (1, 2), train, labels[0], test, labels[1])


def test_test_images_are_standardised_by_the_moments_of_the_others():
    found = standardised(images([[0, 5], [2, 5], [4, 5]], [[6, 5]]))
    deviation = np.sqrt(8 / 3)
    want = [[-2 / deviation, 0], [0, 0], [2 / deviation, 0]]
    np.testing.assert_allclose(found.train_images, want, rtol=1e-6)
    np.testing.assert_allclose(found.test_images, [[4 / deviation, 0]], rtol=1e-6)


def test_images_in_black_and_white():
    found = binarised(images([[0.2, 0.6]], [[0.5, 1.0]]))
    np.testing.assert_array_equal(found.train_images, [[0, 1]])
    np.testing.assert_array_equal(found.test_images, [[0, 1]])
    assert found.train_images.dtype == np.float32


def history(fast, stuck, plain, drifts, saturated):
    """Returns a history of five seeds and 60 rounds.

    Args:
      fast: accuracies of BN; `plain` are those of plain networks from the large scale.
      stuck: accuracies of plain networks from the small scale.
      drifts: drifts of the last layer, by arm; the first layer's drift is 1.
      saturated: shares late in training: plain, and BN; .1 at first.
    """
    accuracies = dict.fromkeys([trial_name(arm, each) for arm in ARMS for each in SCALES])
    accuracies |= {trial_name("batch_norm", each): fast for each in SCALES}
    accuracies |= {trial_name("plain", SCALES[0]): stuck, trial_name("plain", 0.1): plain}
    ends = {"plain": saturated[0], "batch_norm": saturated[1], INPUT: 0.0}
    found = {}
    for arm, drift in zip(ARMS, drifts, strict=True):
        for scale in SCALES:
            late = np.full((5, 60, 3), ends[arm])
            late[:, 0] = 0.1
            name = trial_name(arm, scale)
            found[name] = {
                "accuracy": np.full((5, 60), accuracies[name] or 0.0),
                "drift": np.tile([1.0, 1.0, drift], (5, 1)),
                "ends": late,
            }
    return found


def words(found):
    return [each.word for each in claims.verdicts(found)]


def test_the_claims_pass_on_their_thresholds_and_fail_beyond():
    good = history(0.8001, 0.1999, 0.8, drifts=(1.01, 1.01, 1.0), saturated=(0.11, 0.1))
    assert set(words(good)) == {"PASS"}
    bad = history(0.7999, 0.2001, 0.8, drifts=(0.99, 0.99, 1.0), saturated=(0.09, 0.1))
    assert set(words(bad)) == {"FAIL"}
    assert len(words(bad)) == 10


def test_the_first_layer_has_no_part_in_what_is_said_of_shift():
    found = history(0.9, 0.1, 0.8, drifts=(2, 2, 1), saturated=(0.2, 0.3))
    found[trial_name("plain", SCALES[-1])]["ends"][:, 1:, 0] = 0.9
    assert words(found)[-3:] == ["FAIL", "PASS", "PASS"]
    assert [each.rows for each in claims.verdicts(found)][-3:] == [(25,), (25,), ()]


@pytest.mark.parametrize("scale", SCALES)
def test_either_scale_must_be_fast_at_the_step_that_is_named(scale):
    found = history(0.9, 0.1, 0.8, drifts=(2, 2, 1), saturated=(0.2, 0.1))
    found[trial_name("batch_norm", scale)]["accuracy"][:, 9] = 0.85
    assert set(words(found)) == {"PASS"}
    found[trial_name("batch_norm", scale)]["accuracy"][3, 9] = 0.79
    assert words(found)[0] == "FAIL"


def test_a_last_step_that_is_worse_is_reported():
    found = history(0.9, 0.1, 0.8, drifts=(2, 2, 1), saturated=(0.2, 0.1))
    found[trial_name("plain", SCALES[-1])]["accuracy"][:, -1] = 0.91
    assert [place for place, word in enumerate(words(found)) if word == "FAIL"] == [3]
