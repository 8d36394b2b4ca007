"""No fault is reported of networks that are right; what is unusual of them is noted."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.diagnostics import NOTES
from tests.modules.subjects import WIDTH, Linen, Nnx, middle, well

KEY = jax.random.key(0)
HALF = WIDTH // 2
KINDS = [Linen, pytest.param(Nnx, marks=pytest.mark.slow)]
each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("lenient")


def dead_filters(kind):
    """As after long training, when the running variance has decayed."""
    subject, batches = well(kind)
    kernel, bias = (subject.values("dense_1")[name] for name in ("kernel", "bias"))
    subject.put("dense_1", kernel=jnp.where(middle(kernel), 0, kernel), bias=bias + 7)
    subject.calibrate(batches)
    var = subject.values("norm_1")["var"]
    subject.put("norm_1", var=jnp.where(middle(var), 0.99**2000, var))
    return subject, batches, {"dead features": "6 of 12 features are constant"}


def decayed_weights(kind):
    """Weight decay makes filters that nothing needs tiny, but not quite zero."""
    subject, batches = well(kind)
    kernel, var = subject.values("dense_1")["kernel"], subject.values("norm_1")["var"]
    factor = jnp.where(middle(kernel), 1e-4 * jax.lax.rsqrt(var), 1)
    subject.put("dense_1", kernel=factor * kernel, bias=0 * var)
    subject.calibrate(batches)
    found = subject.values("norm_1")["var"][:HALF]
    assert ((found > 0.5e-8) & (found < 2e-8)).all()
    return subject, batches, {"low variance": "6 of 12 features is below ε = 1e-05"}


def pruned(kind):
    """By a zero scale and bias, with weights pruned later than the statistics are of."""
    subject, batches = well(kind)
    values, kernel = subject.values("norm_1"), subject.values("dense_1")["kernel"]
    keep = jnp.where(middle(values["scale"]), 0, 1)
    subject.put("norm_1", scale=keep * values["scale"], bias=keep * values["bias"])
    subject.put("dense_1", kernel=keep * kernel)
    words = {"dead features": "6 of 12 features are", "scales near zero": "6 of 12 scales"}
    return subject, batches, words


def dead_units(kind):
    subject, batches = well(kind)
    bias = subject.values("norm_1")["bias"]
    subject.put("norm_1", bias=jnp.where(middle(bias), -9.0, bias))
    return subject, batches, {"dead units": "6 of 12 units are saturated on every sample"}


NOTED = (dead_filters, decayed_weights, pruned, dead_units)


@each_kind
@pytest.mark.parametrize("make", NOTED)
def test_what_is_right_is_noted_at_most(make, kind):
    subject, batches, words = make(kind)
    report = subject.diagnose(batches, activation="relu")
    assert report.diagnoses == ()
    assert {each.note: each.norm for each in report.notes} == dict.fromkeys(words, "norm_1")
    for each in report.notes:
        assert re.search(words[each.note], each.words)
        assert "→" not in each.words  # no advice
        assert f"note, {each.note}:" in str(report)
    assert [each["note"] for each in report.to_dict()["notes"]] == list(words)


def test_each_note_is_made():
    assert {note for make in NOTED for note in make(Linen)[2]} == {*NOTES}


class LinenConvolutions(nn.Module):
    """A norm before a relu, and one behind it."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(jn.BatchNorm(name="before")(nn.Conv(8, (3, 3))(x), train=train))
        x = jn.BatchNorm(name="behind")(nn.relu(nn.Conv(8, (3, 3))(x)), train=train)
        return nn.Dense(3)(x.mean((1, 2)))


class NnxConvolutions(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.second = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.before, self.behind = (jx.BatchNorm(8, rngs=rngs) for _ in range(2))
        self.dense = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.before(self.first(x)))
        return self.dense(self.behind(nnx.relu(self.second(x))).mean((1, 2)))


IMAGES = jax.random.normal(KEY, (32, 8, 8, 3))
BATCHES = [IMAGES[:16], IMAGES[16:]]
DEAD = {"kernel": jnp.arange(8) < 2, "bias": jnp.arange(8) == 2}


def killed(name, value):
    """Two filters of zeros, and one that the relu never lets through."""
    return jnp.where(DEAD[name], 0 if name == "kernel" else -99.0, value)


def linen_report():
    model = LinenConvolutions()
    variables = model.init(KEY, IMAGES, train=False)
    params = {
        layer: {n: killed(n, v) for n, v in values.items()} if "Conv" in layer else values
        for layer, values in variables["params"].items()
    }
    variables = jn.calibrate(model, variables | {"params": params}, BATCHES, progress=False)
    return jn.diagnose(model, variables, BATCHES)


def nnx_report():
    model = NnxConvolutions()
    for layer in (model.first, model.second):
        layer.kernel[...] = killed("kernel", layer.kernel[...])
        layer.bias[...] = killed("bias", layer.bias[...])
    jx.calibrate(model, BATCHES, progress=False)
    return jx.diagnose(model, BATCHES)


@pytest.mark.parametrize("report_of", [linen_report, nnx_report])
def test_dead_filters_of_convolutions_are_noted_before_and_behind_a_relu(report_of):
    report = report_of()
    assert report.diagnoses == ()
    assert [(each.note, each.norm, each.words[:4]) for each in report.notes] == [
        ("dead features", "before", "2 of"),  # a large bias alone is normalised away
        ("dead features", "behind", "3 of"),
    ]


@each_kind
def test_a_variance_below_epsilon_that_is_not_the_running_one_is_a_fault(kind):
    """The note does not hide a fault: here evaluation hardly outputs anything."""
    subject, batches, _ = decayed_weights(kind)
    var = subject.values("norm_1")["var"]
    subject.put("norm_1", var=4 * jnp.ones_like(var))
    (found,) = subject.diagnose(batches).diagnoses
    assert (found.fault, found.norm) == ("statistics mismatch", "norm_1")


@pytest.mark.parametrize(
    ("norm", "shape", "words"),
    [
        (jn.InstanceNorm(), (8, 1, 1, 4), "by itself, which leaves 0"),
        (nn.GroupNorm(4), (8, 4), "by itself, which leaves 0"),
        (jn.RMSNorm(), (8, 4, 1), "by its size"),
        (jn.GroupNorm(2), (8, 4), None),
        (jn.LayerNorm(), (8, 4), None),
    ],
)
def test_a_mean_of_one_sample_is_a_fault(norm, shape, words):
    x = jax.random.normal(KEY, shape)
    report = jn.diagnose(norm, norm.init(KEY, x), x)
    found = [(each.fault, words in each.words) for each in report.diagnoses]
    assert found == ([("one sample per mean", True)] if words else [])
