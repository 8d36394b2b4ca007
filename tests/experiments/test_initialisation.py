"""The claims hold up to their thresholds, and only weights are scaled."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.harness.training import TrainState
from experiments.studies import initialisation
from experiments.studies.initialisation import SCALES, at_scale, trial_name


def test_weights_are_scaled_and_nothing_else_is():
    params = {"Dense_0": {"kernel": jnp.full((2, 3), 4.0), "bias": jnp.ones(3)}}
    params |= {"BatchNorm_0": {"scale": jnp.ones(3), "bias": jnp.ones(3)}}
    found = at_scale(0.5)(TrainState(params, {}, None)).params
    assert (found["Dense_0"].pop("kernel") == 2).all()
    assert (params["Dense_0"].pop("kernel") == 4).all()
    for layer, values in params.items():
        for name, value in values.items():
            np.testing.assert_array_equal(found[layer][name], value)


def history(small, best, large):
    """Five seeds, with accuracies (plain, BN) for σ up to .01, in between and from 1 on."""
    found = {}
    for place, norm in enumerate(initialisation.NORMS):
        for scale in SCALES:
            at = small if scale <= 0.01 else large if scale >= 1 else best
            found[trial_name(norm, scale)] = {"accuracy": np.full((5, 1), at[place])}
    return found


def words(found):
    return [each.word for each in initialisation.verdicts(found)]


def test_the_claims_pass_on_their_thresholds_and_fail_beyond():
    good = history((0.1999, 0.8501), (0.9, 0.9), (0.8499, 0.8499))
    assert words(good) == ["PASS"] * 4
    bad = history((0.2001, 0.8499), (0.9, 0.9), (0.8501, 0.8501))
    assert words(bad) == ["FAIL"] * 4


@pytest.mark.parametrize(("norm", "failed"), [("batch_norm", [0]), ("plain", [])])
def test_what_diverges_has_learnt_nothing(norm, failed):
    found = history((0.1, 0.9), (0.9, 0.9), (0.1, 0.1))
    found[trial_name(norm, 0.01)]["accuracy"][2] = np.nan
    assert [place for place, word in enumerate(words(found)) if word == "FAIL"] == failed


def test_one_large_scale_that_trains_is_enough_to_fail():
    found = history((0.1, 0.9), (0.9, 0.9), (0.1, 0.1))
    found[trial_name("batch_norm", 3.0)]["accuracy"][4] = 0.88
    assert words(found) == ["PASS", "PASS", "PASS", "FAIL"]
