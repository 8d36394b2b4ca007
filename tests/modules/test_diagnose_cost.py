"""What a diagnosis compiles and traces does not grow with the number of norms."""

from typing import Any

import flax.linen as nn
import jax
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.subjects import INPUTS, inputs

pytestmark = pytest.mark.usefixtures("lenient")


class Deep(nn.Module):
    norms: int
    traced: Any

    @nn.compact
    def __call__(self, x, train):
        self.traced(train)
        for _ in range(self.norms):
            x = nn.relu(jn.BatchNorm()(nn.Dense(INPUTS)(x), train=train))
        return x


class DeepNnx(nnx.Module):
    def __init__(self, norms, traced):
        rngs = nnx.Rngs(0)
        self.traced = traced
        self.dense = nnx.List([nnx.Linear(INPUTS, INPUTS, rngs=rngs) for _ in range(norms)])
        self.norms = nnx.List([jx.BatchNorm(INPUTS, rngs=rngs) for _ in range(norms)])

    def __call__(self, x):
        self.traced(self.norms[0].use_running_average)
        for dense, norm in zip(self.dense, self.norms, strict=True):
            x = nnx.relu(norm(dense(x)))
        return x


def linen(norms, x, traced):
    model = Deep(norms, traced.append)
    init = jax.jit(model.init, static_argnames="train")
    variables = init(jax.random.key(0), x, train=False)
    return lambda: jn.diagnose(model, variables, x)


def in_nnx(norms, x, traced):
    model = DeepNnx(norms, traced.append)
    return lambda: jx.diagnose(model, x)


def compilations(function, caplog):
    caplog.clear()
    with jax.log_compiles():
        function()
    return sum(record.message.startswith("Compiling ") for record in caplog.records)


@pytest.mark.parametrize("kind", [linen, in_nnx])
def test_the_number_of_norms_changes_neither_compilations_nor_traces(kind, caplog):
    x, counts = inputs(0, 32), []
    for norms in (1, 5):
        traced = []
        diagnose = kind(norms, x, traced)
        traced.clear()
        jax.clear_caches()
        counts.append(compilations(diagnose, caplog))
        assert len(traced) == 2  # the model is traced once in each mode
        assert compilations(diagnose, caplog) == 0
        assert len(traced) == 2
    # Two programs of the model, two kinds of calls, the gap, the merge, and random keys.
    assert counts[0] == counts[1] <= 10
