import numpy as np
import pytest

from experiments.harness.results import above_zero, mean_sd, on_every_seed


def test_on_every_seed_is_a_sign_test():
    values = np.array([3.0, 4.0, 5.0, 6.0, 7.0])
    passed = on_every_seed("c", (1,), values, values >= 3, "points")
    assert passed.passed
    assert passed.word == "PASS"
    assert "5/5 seeds, 3.00 to 7.00 points, sign test p = 0.031" in passed.evidence
    failed = on_every_seed("c", (1,), values, values > 3, "points")
    assert failed.word == "FAIL"
    assert "4/5 seeds" in failed.evidence


def test_on_every_seed_needs_five_seeds_to_pass_and_one_to_fail():
    four = on_every_seed("c", (1,), np.ones(4), np.ones(4, bool), "points")
    assert four.word == "OPEN"
    assert on_every_seed("c", (1,), np.ones(1), np.zeros(1, bool), "points").word == "FAIL"


def test_what_is_not_finite_is_open():
    undefined = np.array([1.0, np.nan, 2.0, 3.0, 4.0])
    for verdict in (
        on_every_seed("c", (1,), undefined, undefined > 0, "points"),
        above_zero("c", (1,), undefined, "points"),
    ):
        assert verdict.word == "OPEN"
        assert "only 4/5 seeds give a finite number" in verdict.evidence


@pytest.mark.parametrize(
    ("differences", "passed"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.2], True),
        ([1.0, -1.0, 2.0, 0.5, 0.1], False),
        ([-1.0, -1.1, -0.9], False),  # an interval that excludes 0 on the wrong side
        ([1.0, 1.0], True),
        ([0.0, 0.0], False),
        ([1.0], None),
    ],
)
def test_above_zero_is_a_paired_interval(differences, passed):
    assert above_zero("c", (1,), differences, "points").passed is passed


def test_the_interval_is_that_of_student():
    """Mean 3, standard deviation √2.5, t(.975, 4) = 2.776: 3 ± 1.963."""
    verdict = above_zero("c", (1,), [1, 2, 3, 4, 5], "points")
    assert "+3.00 points, 95 % interval +1.04 to +4.96" in verdict.evidence


def test_mean_sd_says_the_spread_where_there_is_one():
    assert mean_sd([1, 2, 3]) == "2.0 ± 1.0"
    assert mean_sd([2]) == "2.0"
    assert mean_sd([1, np.nan, 3]) == "2.0 ± 1.4 (2/3)"
    assert mean_sd([np.nan, np.nan]) == "diverged"
