"""A norm that is called twice in a pass, on inputs of different distributions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.subjects import inputs

KEY = jax.random.key(0)
BATCHES = [inputs(i, 128) for i in range(8)]
pytestmark = pytest.mark.usefixtures("lenient")


class Twice(nn.Module):
    """A norm behind each of two layers: the same one, unless `separate`."""

    separate: bool = False
    estimator: Any = jaxnorm.ema(0.99)

    @nn.compact
    def __call__(self, x, train):
        first = jn.BatchNorm(estimator=self.estimator, name="norm")
        second = first
        if self.separate:
            second = jn.BatchNorm(estimator=self.estimator, name="other")
        x = nn.relu(first(nn.Dense(16)(x), train=train))
        x = nn.relu(second(5 + 3 * nn.Dense(16)(x), train=train))
        return nn.Dense(4)(x)


def trained(model):
    """The variables after 800 passes, at fixed weights."""
    variables = model.init(KEY, BATCHES[0], train=False)

    def step(variables, x):
        _, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return {**variables, **updates}, None

    batches = jnp.stack(100 * BATCHES)
    return jax.jit(lambda v: jax.lax.scan(step, v, batches)[0])(variables)


def faults(report):
    return [(each.fault, each.norm) for each in report.diagnoses]


def test_only_a_norm_for_each_call_makes_evaluation_as_training():
    reports, statistics = {}, {}
    for name, model in {
        "average": Twice(),
        "accumulated": Twice(estimator=jaxnorm.accumulate(jaxnorm.ema(0.99), every=2)),
        "separate": Twice(separate=True),
    }.items():
        variables = trained(model)
        reports[name] = jn.diagnose(model, variables, BATCHES)
        statistics[name] = variables["batch_stats"]["norm"]
    calibrated = jn.calibrate(Twice(), trained(Twice()), BATCHES, progress=False)
    reports["calibrated"] = jn.diagnose(Twice(), calibrated, BATCHES)
    statistics["calibrated"] = calibrated["batch_stats"]["norm"]

    shared = [("shared norm", "norm")]
    assert faults(reports.pop("separate")) == []
    assert {name: faults(report) for name, report in reports.items()} == dict.fromkeys(
        reports, shared
    )
    assert "called 2 times per pass" in reports["average"].diagnoses[0].words
    # These two are the moments of both calls together; the average lacks the variance
    # between them, so that its outputs are farther off. But neither is right.
    for name in ("mean", "var"):
        of_both = (statistics[each][name] for each in ("accumulated", "calibrated"))
        np.testing.assert_allclose(*of_both, rtol=0.05)
    first, second = reports["calibrated"].norms
    between = np.square(first.batch_mean - second.batch_mean) / 4
    mixture = (first.batch_var + second.batch_var) / 2 + between
    np.testing.assert_allclose(statistics["calibrated"]["var"], mixture, rtol=0.01)
    gaps = {name: report.gap.relative for name, report in reports.items()}
    assert gaps["average"] == pytest.approx(2.03, abs=0.05)
    assert gaps["accumulated"] == pytest.approx(0.96, abs=0.05)
    assert gaps["calibrated"] == pytest.approx(gaps["accumulated"], rel=0.05)


def test_the_gap_of_separate_norms_is_that_of_batches():
    model = Twice(separate=True)
    report = jn.diagnose(model, trained(model), BATCHES)
    assert report.gap.relative == pytest.approx(0.13, abs=0.02)


class Towers(nnx.Module):
    """Encodes two views with the same layers."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.dense = nnx.Linear(6, 16, rngs=rngs)
        self.norm = jx.BatchNorm(16, rngs=rngs)

    def __call__(self, views):
        return [self.norm(self.dense(view)) for view in views]


def of_towers(offset):
    views = [(x, y + offset) for x, y in zip(BATCHES, BATCHES[::-1], strict=True)]
    model = Towers()
    jx.calibrate(model, views, progress=False)
    return jx.diagnose(model, views)


def test_calls_on_the_same_distribution_may_share_a_norm():
    assert faults(of_towers(0)) == []
    assert faults(of_towers(jnp.arange(6.0))) == [("shared norm", "norm")]


def test_what_is_wrong_with_all_statistics_is_reported_once():
    model = Twice()
    variables = model.init(KEY, BATCHES[0], train=False)
    report = jn.diagnose(model, variables, BATCHES)
    assert [norm.name for norm in report.norms] == ["norm", "norm, call 2"]
    assert faults(report) == [("never updated", "norm")]
