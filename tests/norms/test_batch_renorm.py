"""What is specific to batch renormalisation; the table of cases covers the rest."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Statistics, batch_norm, batch_renorm, ema, renorm_schedule

RUNNING = Statistics(jnp.array([1.9, 2.0, 2.2]), jnp.array([8.0, 9.0, 10.0]))
train = jax.jit(functools.partial(batch_renorm, train=True, estimator=ema(0.9)))


@pytest.fixture
def x(rng):
    return rng.normal(2, 3, (64, 3)).astype(np.float32)


def test_within_its_limits_it_normalises_as_evaluation_does(x):
    y, _ = train(x, RUNNING)
    expected, _ = batch_norm(x, RUNNING, train=False)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_without_room_for_corrections_it_is_batch_norm(x):
    y, statistics = train(x, RUNNING, r_max=1.0, d_max=0.0)
    expected = batch_norm(x, RUNNING, train=True, estimator=ema(0.9))
    chex.assert_trees_all_close((y, statistics), expected, rtol=1e-6, atol=1e-6)


def test_a_batch_of_one_class_is_not_pulled_to_the_mean(x):
    """Batch norm gives any batch a mean of β, and so loses the class of the batch."""
    lopsided = x + 3
    by_batch, _ = batch_norm(lopsided, RUNNING, train=True, estimator=ema(0.99))
    renormalized, _ = train(lopsided, RUNNING)
    np.testing.assert_allclose(by_batch.mean(0), 0, atol=1e-5)
    assert (renormalized.mean(0) > 0.8).all()


def test_updates_and_evaluates_as_batch_norm_does(x):
    for flags in ({"train": False}, {"train": False, "update": True}):
        got = batch_renorm(x, RUNNING, estimator=ema(0.9), **flags)
        expected = batch_norm(x, RUNNING, estimator=ema(0.9), **flags)
        chex.assert_trees_all_equal(got, expected)
    _, kept = batch_renorm(x, RUNNING, train=True, update=False)
    chex.assert_trees_all_equal(kept, RUNNING)


def test_corrections_take_no_part_in_the_derivative(x):
    """The gradient of x sums to 0 over a batch; in evaluation it would not."""
    g = jnp.cos(x)
    dx = jax.jit(
        jax.grad(
            lambda x: jnp.vdot(
                batch_renorm(x, RUNNING, train=True, estimator=ema(0.99))[0], g
            )
        )
    )(x)
    np.testing.assert_allclose(dx.sum(0), 0, atol=1e-5)
    assert np.abs(dx).max() > 0.01


def test_statistics_that_say_nothing_correct_nothing(x):
    """A running standard deviation of 0, with ε = 0."""
    zero = Statistics(jnp.zeros(3), jnp.zeros(3))
    y, _ = batch_renorm(x, zero, train=True, estimator=ema(0.99), epsilon=0.0)
    expected, _ = batch_norm(x, zero, train=True, estimator=ema(0.99), epsilon=0.0)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_the_schedule_is_the_papers():
    limits = jax.jit(renorm_schedule())
    found = {step: limits(step) for step in (0, 5_000, 15_000, 25_000, 40_000, 10**6)}
    expected = {
        0: (1, 0),
        5_000: (1, 0),
        15_000: (1 + 2 * 10 / 35, 2.5),
        25_000: (1 + 2 * 20 / 35, 5),
        40_000: (3, 5),
        10**6: (3, 5),
    }
    chex.assert_trees_all_close(found, jax.tree.map(jnp.float32, expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"r_max": 0.5}, "r_max=0.5, but it must be at least 1"),
        ({"d_max": -1.0}, "d_max=-1.0, but it must be at least 0"),
        ({"r_max": float("nan")}, "r_max=nan"),
        ({"d_max": np.ones(3, np.float32)}, r"d_max has shape \(3,\)"),
        ({"r_max": np.array(3, np.complex64)}, "complex64, but one real number"),
    ],
)
def test_limits_out_of_range_are_refused(x, limits, said):
    with pytest.raises(ValueError, match=said):
        batch_renorm(x, RUNNING, train=True, estimator=ema(0.99), **limits)
    if isinstance(next(iter(limits.values())), float):
        with pytest.raises(ValueError, match=said):
            renorm_schedule(**limits)


@pytest.mark.parametrize("steps", [{"start": -1}, {"start": 30_000}, {"r_end": 5_000}])
def test_a_schedule_that_ends_before_it_begins_is_refused(steps):
    with pytest.raises(ValueError, match="0 ≤ start < r_end and d_end"):
        renorm_schedule(**steps)


def test_limits_that_grow_are_finite_and_those_that_do_not_may_be_infinite(x):
    with pytest.raises(ValueError, match="limits that grow must be finite"):
        renorm_schedule(r_max=float("inf"))
    y, _ = train(x, RUNNING, r_max=float("inf"), d_max=float("inf"))
    np.testing.assert_allclose(
        y, batch_norm(x, RUNNING, train=False)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("limit", ["3", None])
def test_limits_that_are_no_numbers_are_refused(x, limit):
    with pytest.raises(TypeError, match=f"r_max={limit!r}, but a real number"):
        batch_renorm(x, RUNNING, train=True, estimator=ema(0.99), r_max=limit)


def test_schedules_made_alike_are_equal():
    assert renorm_schedule(start=7) == renorm_schedule(start=7) != renorm_schedule()
