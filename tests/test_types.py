"""What a type checker knows of the public API: pyright reads this file, too."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import TYPE_CHECKING, Any, assert_type

import jax
import jax.numpy as jnp

import jaxnorm
from jaxnorm import CountedStatistics, Estimator, Moments, Statistics

X = jnp.ones((4, 3))
AVERAGE = jaxnorm.ema(0.9)


def test_an_estimator_knows_its_state():
    assert_type(jaxnorm.ema(0.9), Estimator[Statistics])
    assert_type(jaxnorm.ema(0.9, debias=True), Estimator[CountedStatistics])
    assert_type(jaxnorm.ema(0.9, warmup=True), Estimator[CountedStatistics])
    assert_type(jaxnorm.population(), Estimator[Moments])
    assert_type(jaxnorm.population(pooled=False), Estimator[CountedStatistics])
    state = jaxnorm.accumulate(jaxnorm.ema(0.9), every=2).init((3,))
    assert_type(state, jaxnorm.AccumulateState)
    assert isinstance(state, jaxnorm.AccumulateState)


def test_batch_norm_returns_the_state_that_it_is_given():
    y, statistics = jaxnorm.batch_norm(X, AVERAGE.init((3,)), train=True, estimator=AVERAGE)
    assert_type(y, jax.Array)
    assert_type(statistics, Statistics)
    equal = jaxnorm.cumulative()
    _, averages = jaxnorm.batch_norm(X, equal.init((3,)), train=True, estimator=equal)
    assert_type(averages, CountedStatistics)
    assert isinstance(statistics, Statistics)
    assert isinstance(averages, CountedStatistics)


def test_modules_are_known_without_an_import_of_their_own():
    assert_type(jaxnorm.linen.LayerNorm(), jaxnorm.linen.LayerNorm)
    made: Any = jaxnorm.linen.LayerNorm().init(jax.random.key(0), X)
    assert set(made) == {"params"}


if TYPE_CHECKING:
    # Of another estimator than the one that reads it.
    jaxnorm.batch_norm(
        X,
        jaxnorm.ema(0.9).init((3,)),
        train=True,
        estimator=jaxnorm.cumulative(),  # pyright: ignore[reportArgumentType]
    )
