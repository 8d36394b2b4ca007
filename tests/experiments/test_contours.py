"""Row 6's quadratic: descent in closed form, and the verdicts at their thresholds."""

import numpy as np
import pytest

from experiments.studies import contours
from experiments.studies.contours.quadratic import quadratic, whiten


def loss(x, y, w):
    return np.mean((x @ w - y) ** 2) / 2


@pytest.fixture
def problem(rng):
    return rng.normal(size=(50, 3)) * [1, 4, 2] + 1, rng.normal(size=50)


def test_closed_form_is_gradient_descent_step_by_step(problem):
    x, y = problem
    found = quadratic(x, y)
    w, rate = np.zeros(3), found.best_rate
    for step in range(20):
        np.testing.assert_allclose(found.path(rate, np.asarray([step]))[0], w, atol=1e-12)
        excess = loss(x, y, w) - loss(x, y, found.minimum)
        np.testing.assert_allclose(found.excess(rate, np.asarray([step]))[0], excess)
        w = w - rate * x.T @ (x @ w - y) / len(x)


def test_condition_is_that_of_the_hessian(problem):
    x, y = problem
    np.testing.assert_allclose(quadratic(x, y).condition, np.linalg.cond(x.T @ x))


def test_no_other_rate_is_as_fast_along_the_slowest_direction(problem):
    found = quadratic(*problem)

    def slowest(rate):
        return np.abs(1 - rate * found.eigenvalues).max()

    for other in (0.9, 0.99, 1.01, 1.1):
        assert slowest(found.best_rate) < slowest(found.best_rate * other)


def test_steps_until_is_the_first_that_is_there(problem):
    found = quadratic(*problem)
    excess = found.excess(found.best_rate, np.arange(2000))
    steps = found.steps_until(found.best_rate, 1e-6)
    assert steps == np.argmax(excess <= 1e-6) > 0


def test_steps_until_is_inf_where_descent_explodes(problem):
    found = quadratic(*problem)
    assert found.steps_until(2.1 / found.eigenvalues[-1], 1e-6) == np.inf


def test_whitened_inputs_have_the_identity_as_covariance(problem):
    x = whiten(problem[0])
    np.testing.assert_allclose(np.cov(x.T, bias=True), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)


def test_car_rental_prices_are_of_the_ranges_of_row_46():
    x, _ = contours.car_rental(np.random.default_rng(0))
    assert x.min() >= 0
    assert 29 < x[:, 0].max() <= 30
    assert 2e5 < x[:, 1].max() <= 3e5


def history(raw, standardised, whitened):
    """Five equal seeds, given the numbers of raw, standardised and whitened inputs."""
    numbers = dict.fromkeys(contours.INPUTS, standardised)
    numbers |= {"raw": raw, "whitened": whitened}
    return {
        contours.part_name(problem, inputs): {
            name: np.full(5, float(value)) for name, value in numbers[inputs].items()
        }
        for problem in contours.PROBLEMS
        for inputs in contours.INPUTS
    }


STANDARDISED = {"condition": 4, "steps": 10, "factor": 0.5}


@pytest.mark.parametrize(
    ("raw", "whitened", "words"),
    [
        (
            {"condition": 5, "steps": 100, "factor": 1.1},
            {"condition": 1.009},
            "PASS PASS PASS PASS PASS PASS FAIL",
        ),
        (
            {"condition": 4, "steps": 99, "factor": 0.9},
            {"condition": 1.02},
            "FAIL FAIL FAIL FAIL FAIL FAIL FAIL",
        ),
    ],
)
def test_verdicts_at_their_thresholds(raw, whitened, words):
    found = contours.verdicts(history(raw, STANDARDISED, whitened))
    assert [each.word for each in found] == words.split()
