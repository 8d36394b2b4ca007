"""One network evaluated with each estimator, and the study that compares them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm
from experiments.models import SeedNetwork
from experiments.models.several import Several, by
from experiments.studies import population

pytestmark = pytest.mark.usefixtures("lenient")
WIDTHS = (4, 3)
ESTIMATORS = {
    "EMA, plain": jaxnorm.ema(0.9),
    "warmed up": jaxnorm.ema(0.9, warmup=True),
    "population": jaxnorm.population(),
}


def trained(estimator, rng):
    """Returns the model and its variables after two batches."""
    model = SeedNetwork(WIDTHS, estimator=estimator)
    batches = jnp.asarray(rng.normal(size=(2, 8, 5)), jnp.float32)
    variables = model.init(jax.random.key(0), batches[0], train=False)
    for x in batches:
        _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        variables |= updates
    return model, variables


@pytest.mark.slow  # a network is compiled for each
@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_of_several_estimators_is_as_if_it_were_alone(name):
    together = trained(Several(tuple(ESTIMATORS.items())), np.random.default_rng(0))
    expected = trained(ESTIMATORS[name], np.random.default_rng(0))
    model, variables = by(name, *together)
    assert model == expected[0]
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def measured(**points):
    """A history of 300 steps in which all have 80 %, except for the given changes."""
    rounds, flat = population.ROUNDS[False], np.full((5, population.ROUNDS[False]), 0.8)
    found = {f"{name}: accuracy": flat.copy() for name in population.NAMES}
    found |= {f"{name}: var": np.ones((5, rounds)) for name in population.ESTIMATORS}
    found["warmed up .99, m/(m−1): var"] -= np.linspace(0.1, 0.2, 5)[:, None]
    for name, more in points.items():
        found[f"{name}: accuracy"] += more / 100
    return {population.NAME: found | {"loss": flat}}


WELL = {"EMA .999": -5.01, population.again(10): -5.01}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"EMA .999": -4.99}, [0]),
        ({"warmed up .99": -1.01}, [1]),
        ({"warmed up .99": 1.01}, [1]),
        ({"cumulative": -1.01}, [2]),
        ({"EMA .99": -1.01}, [3]),
        ({population.BATCH: 1.51}, [4]),
        ({population.again(10): -4.99}, [5]),
    ],
)
def test_the_thresholds_of_the_claims(change, failed):
    words = [each.word for each in population.verdicts(measured(**WELL | change))]
    assert [i for i, word in enumerate(words) if word != "PASS"] == failed


def test_the_first_claims_are_of_step_150_and_others_of_the_last():
    history = measured(**WELL)
    early = history[population.NAME]["EMA .999: accuracy"]
    early[:, 150 // population.STEPS - 1] = 0.8
    words = [each.word for each in population.verdicts(history)]
    assert words == ["FAIL", *["PASS"] * 6]
    history = measured(**WELL)
    history[population.NAME]["EMA .99: accuracy"][:, -1] = 0.7
    words = [each.word for each in population.verdicts(history)]
    assert words[3] == "FAIL"


def test_errors_are_in_deviations_and_of_the_logarithm():
    found = population.errors(
        (jnp.array([1.0, 2.0]), jnp.array([np.e, 1.0])),
        (jnp.array([0.0, 0.0]), jnp.array([1.0, 4.0])),
    )
    assert float(found["mean"]) == pytest.approx(1)
    assert float(found["var"]) == pytest.approx((1 + np.log(4)) / 2)
