"""Calibration of norms that are not jaxnorm's, by what describes them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx


class OtherNorm(nn.Module):
    """A norm of somebody else, with its statistics in their usual place."""

    @nn.compact
    def __call__(self, x, train):
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        centre, spread = (x.mean(0), x.var(0)) if train else (mean.value, var.value)
        return (x - centre) / jnp.sqrt(spread + 1e-3)

    def norm_spec(self, x, train):
        average = jaxnorm.ema(0.9)
        return jaxnorm.NormSpec((1,), (0,), 1e-3, estimator=average, train=train)


class OtherNnxNorm(nnx.Module):
    """The same in NNX."""

    def __init__(self):
        self.mean, self.var = (nnx.BatchStat(each) for each in (jnp.zeros(3), jnp.ones(3)))
        self.use_running_average = False

    def __call__(self, x):
        average = self.use_running_average
        mean, var = (self.mean[...], self.var[...]) if average else (x.mean(0), x.var(0))
        return (x - mean[None]) / jnp.sqrt(var[None] + 1e-3)

    def norm_spec(self, x):
        train = not self.use_running_average
        average = jaxnorm.ema(0.9)
        return jaxnorm.NormSpec((1,), (0,), 1e-3, estimator=average, train=train)


@pytest.fixture
def parts(rng):
    return [np.float32(rng.normal(3, 2, (size, 3))) for size in (5, 8, 4)]


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("behind", ["batch", "running"])
@pytest.mark.parametrize("norm", ["flax", "other"])
def test_norms_of_flax_and_of_others_are_measured_in_linen(parts, norm, behind):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            if norm == "other":
                return OtherNorm(name="norm")(2 * x, train)
            return nn.BatchNorm(name="norm")(2 * x, use_running_average=not train)

    variables = Model().init(jax.random.key(0), parts[0], train=False)
    found = jn.calibrate(Model(), variables, parts, behind=behind, progress=False)
    x = 2 * np.concatenate(parts)
    statistics = found["batch_stats"]["norm"]
    assert set(statistics) == {"mean", "var"}
    np.testing.assert_allclose(statistics["mean"], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], x.var(0, ddof=1), rtol=1e-5)


@pytest.mark.usefixtures("lenient")
def test_the_mask_of_a_norm_of_flax_counts(parts):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            mask = jnp.arange(len(x))[:, None] < 3
            return nn.BatchNorm()(x, use_running_average=not train, mask=mask)

    variables = Model().init(jax.random.key(0), parts[0], train=False)
    found = jn.calibrate(Model(), variables, parts, progress=False)
    x = np.concatenate([part[:3] for part in parts])
    mean = found["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("behind", ["batch", "running"])
@pytest.mark.parametrize("norm", ["flax", "other"])
@pytest.mark.parametrize("nested", [True, False], ids=["in a model", "alone"])
def test_norms_of_flax_and_of_others_are_measured_in_nnx(parts, norm, behind, nested):
    rngs = nnx.Rngs(0)
    layer = OtherNnxNorm() if norm == "other" else nnx.BatchNorm(3, rngs=rngs)
    model = nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), layer) if nested else layer
    before = nnx.graphdef(model)
    jx.calibrate(model, parts, behind=behind, progress=False)
    x = np.concatenate(parts)
    x = np.asarray(model.layers[0](x)) if nested else x
    np.testing.assert_allclose(layer.mean[...], x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.var[...], x.var(0, ddof=1), rtol=1e-4)
    assert nnx.graphdef(model) == before


class Wrapped(nn.Module):
    """A norm that describes itself, and leaves its statistics to one inside it."""

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(jn.BatchNorm(train=train, name="inner")(x))

    def norm_spec(self, x, train):
        spec = jn.BatchNorm(train=train).norm_spec(x)
        return jaxnorm.NormSpec(**{**vars(spec), "affine": False})


class WrappedNnx(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.inner = jx.BatchNorm(3, rngs=rngs)

    def __call__(self, *args):
        return nnx.relu(self.inner(*args))

    def norm_spec(self, x):
        return self.inner.norm_spec(x)


@pytest.mark.usefixtures("lenient")
def test_a_norm_inside_a_norm_is_measured_once(parts):
    x = np.concatenate(parts)
    variables = Wrapped().init(jax.random.key(0), parts[0], train=False)
    found = jn.calibrate(Wrapped(), variables, parts, progress=False)
    mean = found["batch_stats"]["inner"]["mean"]
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    model = WrappedNnx(nnx.Rngs(0))
    jx.calibrate(model, parts, progress=False)
    np.testing.assert_allclose(model.inner.mean[...], x.mean(0), rtol=1e-5)
