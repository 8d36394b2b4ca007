"""The table of estimators: add a row for a new one, and all laws are tested for it."""

import jax.numpy as jnp
import pytest

from jaxnorm import accumulate, collect, cumulative, ema, population, skip_nonfinite
from tests.support.cases import rows


def half_at_first(updates):
    """A schedule of the decay; a function of a module, so that it can be pickled."""
    return jnp.where(updates < 1, 0.5, 0.9)


ESTIMATORS = {
    "ema": ema(0.9),
    "debiased": ema(0.9, debias=True),
    "warmed up": ema(0.9, warmup=True),
    "debiased and warmed up": ema(0.9, debias=True, warmup=True),
    "scheduled": ema(half_at_first),
    "unbiased": ema(0.9, unbiased=True),
    "cumulative": cumulative(),
    "population": population(),
    "paper's population": population(pooled=False),
    "guarded": skip_nonfinite(ema(0.9)),
    "accumulating": accumulate(ema(0.9), 2),
    "collecting": collect(ema(0.9)),
    # Its state contains the state of all the others.
    "richest": accumulate(skip_nonfinite(ema(0.9, debias=True)), 2),
}
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
# For tests that compile a lot: one with a count, one with moments, and one with all
# wrappers.
most_different_estimators = pytest.mark.parametrize(
    "estimator",
    rows(
        ESTIMATORS.values(),
        [ESTIMATORS[name] for name in ("warmed up", "population", "richest")],
    ),
    ids=ESTIMATORS,
)
