"""A norm that is not recognised, or not observed, is named rather than left out."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.nnx import bridge

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.subjects import inputs

KEY, X = jax.random.key(0), inputs(0, 32)
pytestmark = pytest.mark.usefixtures("lenient")


class Whitening(nn.Module):
    """A batch norm of another library, by its statistics."""

    @nn.compact
    def __call__(self, x):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(x.shape[-1]))
        var = self.variable("batch_stats", "var", lambda: jnp.ones(x.shape[-1]))
        return (x - mean.value) / jnp.sqrt(var.value)


class PowerNorm(nn.Module):
    """A norm of another library, by its name."""

    def __call__(self, x):
        return x / jnp.abs(x).max(-1, keepdims=True)


class DenseNorm(nn.Module):
    """Is named a norm, but only calls one."""

    @nn.compact
    def __call__(self, x, train):
        return jn.BatchNorm(name="inner")(nn.Dense(6)(x), train=train)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jn.LayerNorm(name="inner")(x), None


class Mixed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = DenseNorm(name="known")(x, train)
        x = PowerNorm(name="by_name")(Whitening(name="by_statistics")(x))
        x = nn.SpectralNorm(nn.Dense(6), name="of_weights")(x, update_stats=False)
        if train:
            x = jn.LayerNorm(name="in_training")(x)
        scan = nn.scan(Scanned, variable_axes={"params": 0}, split_rngs={"params": True})
        return scan(name="scanned")(x, jnp.arange(3))[0]


def test_what_is_not_examined_in_linen_is_named():
    variables = Mixed().init(KEY, X, train=True)
    report = jn.diagnose(Mixed(), variables, X)
    assert [norm.name for norm in report.norms] == ["known/inner"]
    assert {(each.path, each.kind, each.reason) for each in report.unexamined} == {
        ("by_statistics", "Whitening", "has no norm_spec"),
        ("by_name", "PowerNorm", "has no norm_spec"),
        ("in_training", "LayerNorm", "is called in one mode only"),
        ("scanned/inner", "LayerNorm", "is called inside nn.scan or nn.vmap"),
    }
    assert "by_name (PowerNorm) has no norm_spec;" in " ".join(str(report).split())
    kept = json.loads(json.dumps(report.to_dict(), allow_nan=False))["unexamined"]
    assert [each["path"] for each in kept] == [each.path for each in report.unexamined]


def test_a_model_of_unknown_norms_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Not examined: the norm \(Whitening\) has no"):
        jn.diagnose(Whitening(), Whitening().init(KEY, X), X)


class NnxWhitening(nnx.Module):
    def __init__(self):
        self.mean, self.var = nnx.BatchStat(jnp.zeros(6)), nnx.BatchStat(jnp.ones(6))

    def __call__(self, x):
        return (x - self.mean[...]) / jnp.sqrt(self.var[...])


class Described(NnxWhitening):
    def norm_spec(self, x):
        return jaxnorm.NormSpec((1,), (0,), 0.0, estimator=jaxnorm.ema(0.9), train=False)


class NnxMixed(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.known, self.mapped = jx.BatchNorm(6, rngs=rngs), jx.LayerNorm(6, rngs=rngs)
        self.theirs, self.described = NnxWhitening(), Described()
        bridged = bridge.ToNNX(nn.BatchNorm(use_running_average=True), rngs=rngs)
        self.bridged = bridged.lazy_init(X)

    def __call__(self, x):
        x = self.bridged(self.described(self.theirs(self.known(x))))
        return jax.vmap(self.mapped)(x)


def test_what_is_not_examined_in_nnx_is_named():
    report = jx.diagnose(NnxMixed(), X)
    assert [norm.name for norm in report.norms] == ["known", "described"]
    assert {(each.path, each.kind, each.reason) for each in report.unexamined} == {
        ("theirs", "NnxWhitening", "has no norm_spec"),
        ("bridged", "ToNNX", "has no norm_spec"),
        ("mapped", "LayerNorm", "is not called, or only inside a transform of JAX"),
    }


def test_of_a_model_that_is_examined_nothing_is_said():
    model = DenseNorm()
    report = jn.diagnose(model, model.init(KEY, X, train=False), X)
    assert report.unexamined == ()
    assert "Not examined" not in str(report)
