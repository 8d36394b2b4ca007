"""Watching a model changes nothing, and reports modules by their variables' paths."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.linen.watching import watching
from jaxnorm.nnx.watching import watched

X = jnp.array([[1.0, 2.0], [3.0, 5.0]])


@pytest.fixture
def seen():
    """Returns a list of calls, and an `around` function that records them."""
    calls = []

    def around(path, module, call, args, kwargs):
        calls.append((path, type(module)))
        return call(*args, **kwargs)

    return calls, around


def test_linen(seen):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jn.BatchNorm(train=False)(nn.Dense(2)(x))

    calls, around = seen
    model = nn.Sequential([Block(), nn.relu])
    variables = model.init(jax.random.key(0), X)
    with watching(around):
        y = model.apply(variables, X)
    np.testing.assert_array_equal(y, model.apply(variables, X))
    assert calls == [
        ("", nn.Sequential),
        ("layers_0", Block),
        ("layers_0/Dense_0", nn.Dense),
        ("layers_0/BatchNorm_0", jn.BatchNorm),
    ]


def test_nnx(seen):
    calls, around = seen
    rngs = nnx.Rngs(0)
    shared = nnx.Linear(2, 2, rngs=rngs)
    model = nnx.Sequential(shared, jx.BatchNorm(2, rngs=rngs), shared)
    copy = watched(model, lambda kind: kind in (nnx.Linear, jx.BatchNorm), around)
    copy.eval()
    y = copy(X)
    assert [path for path, _ in calls] == ["layers/0", "layers/1", "layers/0"]
    assert copy.layers[1].num_features == 2
    copy.train()
    copy(X)
    assert copy.layers[1].mean[...].any()
    assert not model.layers[1].mean[...].any()
    assert not model.layers[1].use_running_average
    model.eval()
    np.testing.assert_array_equal(y, model(X))
