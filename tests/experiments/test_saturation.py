"""The sigmoid's gradient matches its formula; the claims hold up to their thresholds."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from experiments.studies.saturation import claims, slope
from experiments.studies.saturation.claims import DEPTHS, LABELS, at_rest, trial_name

DEEP_ARMS = ("batch_norm", "sigmoid, dropout", "skip", "relu")


@pytest.mark.parametrize("z", [-8.0, -6.0, 0.0, 1.5, 800.0])
def test_the_derivative_is_that_of_the_sigmoid(z):
    h = 1e-6
    with np.errstate(over="ignore"):
        above, below = (1 / (1 + np.exp(-(z + each))) for each in (h, -h))
    want = (above - below) / (2 * h)
    assert slope.derivative(z) == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("mean", "known"), [(-6, 0.0040), (0, 0.2066)])
def test_its_mean_is_the_integral(mean, known):
    found = slope.mean_derivative(mean)
    integral, _ = quad(
        lambda z: slope.derivative(z) * norm.pdf(z - mean), mean - 12, mean + 12
    )
    assert found == pytest.approx(integral, rel=1e-6)
    assert found == pytest.approx(known, abs=5e-5)
    assert slope.derivative(-6.0) == pytest.approx(0.002467, abs=5e-7)


def test_the_share_is_that_within_two_deviations():
    assert slope.share_between(-8, -4, -6) == pytest.approx(0.9545, abs=5e-5)


def history(deep, layer_norm, plain, decades):
    """Five seeds, given accuracies of deep networks and decades between gradients."""
    found = {}
    for arm in LABELS:
        for depth in DEPTHS[False]:
            value = {"plain": plain, "layer_norm": layer_norm}.get(arm, deep)
            value = 0.3 if arm == "plain" and depth == 2 else value
            found[trial_name(arm, depth)] = {"accuracy": np.full((5, 2), value)}
        apart = decades[arm == "plain"]
        norms = np.broadcast_to(10.0 ** np.linspace(apart, 0, 13), (5, 1, 13))
        found[at_rest(arm)] = {"gradient": norms}
    return found


def words(of):
    return [each.word for each in claims.verdicts(of)]


def test_the_claims_pass_on_their_thresholds_and_fail_beyond():
    good = history(0.8501, 0.8501, 0.1999, decades=(-1.99, -2.01))
    assert set(words(good)) == {"PASS"}
    bad = history(0.8499, 0.8499, 0.2001, decades=(2.01, -1.99))
    assert words(bad) == ["PASS"] + ["FAIL"] * (len(words(bad)) - 1)


@pytest.mark.parametrize("arm", DEEP_ARMS)
def test_a_depth_that_diverges_on_one_seed_fails_its_arm_alone(arm):
    found = history(0.9, 0.9, 0.1, decades=(0, -3))
    found[trial_name(arm, 8)]["accuracy"][2, -1] = np.nan
    failed = [each for each in claims.verdicts(found) if each.word != "PASS"]
    assert [each.claim.partition(",")[0] for each in failed] == [LABELS[arm]]


def test_shallow_nets_are_not_asked_to_train():
    found = history(0.9, 0.9, 0.1, decades=(0, -3))
    for depth in (2, 4):
        found[trial_name("batch_norm", depth)]["accuracy"][:] = 0.1
    assert set(words(found)) == {"PASS"}
