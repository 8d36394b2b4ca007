"""The thresholds of the learning-rate study."""

import numpy as np
import pytest

from experiments.studies import learning_rate
from experiments.studies.learning_rate import NORMS, RATES, trial_name


def measured(plain, norm, best=0.0):
    """Both are stable up to a rate, BN is better by some points, and the rest diverges."""
    history = {}
    for name, stable in zip(NORMS, (plain, norm), strict=True):
        more = best / 100 * (name != "plain")
        for rate in RATES:
            value = 0.8 + more if rate <= stable else np.nan
            history[trial_name(name, rate)] = {"accuracy": np.full((5, 1), value)}
    return history


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (measured(0.1, 0.3, best=1.01), ["PASS", "PASS"]),
        (measured(0.3, 0.3, best=0.99), ["FAIL", "FAIL"]),
        (measured(1.0, 0.3, best=1.01), ["FAIL", "PASS"]),
    ],
)
def test_the_thresholds_of_the_claims(history, words):
    assert [each.word for each in learning_rate.verdicts(history)] == words


def test_below_80_percent_is_not_stable():
    history = measured(1.0, 1.0)
    history[trial_name("plain", 1.0)]["accuracy"] -= 0.001
    np.testing.assert_array_equal(learning_rate.largest_stable(history, "plain"), [0.3] * 5)
