"""Norms that describe themselves, and how whole-model functions use the description."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.support.cases import cases

KEY = jax.random.key(0)
X = 3 + jax.random.normal(KEY, (16, 5, 4))


class Doubled(jn.BatchNorm):
    """Inherits the description, but computes something else."""

    def __call__(self, x, **call):
        return 2 * super().__call__(x, **call)


class Clipped(jn.BatchNorm):
    """Describes itself as doing more than an affine function."""

    def __call__(self, x, **call):
        return nn.relu(super().__call__(x, **call))

    def norm_spec(self, x, **call):
        spec = super().norm_spec(x, **call)
        return jaxnorm.NormSpec(**{**vars(spec), "affine": False})


class Network(nn.Module):
    norm: nn.Module
    call: tuple = ()

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(self.norm(nn.Dense(4, name="dense")(x), **dict(self.call)))


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (Doubled, "it is a Doubled, whose arithmetic may differ"),
        (Clipped, "it is a Clipped, which does more than scale and shift"),
    ],
)
def test_only_affine_norms_are_folded(norm, reason):
    model = Network(norm(train=False))
    variables = model.init(KEY, X)
    (kept,) = jn.fold(model, variables, X).report.kept
    assert kept.reason == reason


CENTRING = {
    "batch": (functools.partial(jn.BatchNorm, train=True), True),
    "renorm": (functools.partial(jn.BatchRenorm, train=True), True),
    "evaluating": (functools.partial(jn.BatchNorm, train=False), False),
    "instance": (jn.InstanceNorm, True),
    "of positions": (functools.partial(jn.LayerNorm, reduction_axes=1), True),
    "layer": (jn.LayerNorm, False),
    "rms": (functools.partial(jn.RMSNorm, reduction_axes=1), False),
    "group": (functools.partial(jn.GroupNorm, 2), False),
    "groups of one": (functools.partial(jn.GroupNorm, 4), True),
    "flax's groups of one": (functools.partial(nn.GroupNorm, None, 1), True),
}


@pytest.mark.parametrize(("norm", "cancels"), CENTRING.values(), ids=CENTRING)
def test_a_bias_is_cancelled_where_its_mean_is_subtracted(norm, cancels):
    """The label follows from the description; the gradient confirms it."""
    model = Network(norm())
    variables = model.init(KEY, X)
    labels = jn.parameter_labels(model, variables, X)
    assert labels["dense"]["bias"] == ("cancelled" if cancels else "weight")

    def loss(params):
        y, _ = model.apply({**variables, "params": params}, X, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y))

    gradients = jax.jit(jax.grad(loss))(variables["params"])["dense"]
    bias, kernel = (np.abs(gradients[each]).max() for each in ("bias", "kernel"))
    assert (bias < 1e-4 * kernel) == cancels


@pytest.mark.parametrize("name", ["scale", "bias"])
def test_a_conditional_norm_is_not_taken_for_an_imprecise_one(name):
    vector = tuple(map(float, range(2, 6)))

    class Conditional(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return jn.BatchNorm(train=train)(x, **{name: jnp.array(vector)})

    model = Conditional()
    variables = model.init(KEY, X, train=False)
    _, updates = model.apply(variables, X, train=True, mutable=["batch_stats"])
    report = jn.diagnose(model, {**variables, **updates}, X)
    assert [each.fault for each in report.diagnoses] == ["too few updates"]
    assert report.norms[0].train.conditional


FUNCTIONS = {
    "batch_norm-train": ("BatchNorm", {"train": True}),
    "batch_norm-eval": ("BatchNorm", {"train": False}),
    "layer_norm": ("LayerNorm", {}),
    "rms_norm": ("RMSNorm", {}),
    "group_norm": ("GroupNorm", {"num_groups": 2}),
    "instance_norm": ("InstanceNorm", {}),
}


@pytest.mark.parametrize("api", ["linen", "nnx"])
@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases(["float32"], ["none"])
        if case.norm.name in FUNCTIONS
        and not case.layout.conditional
        and (case.layout.reduced is None or case.norm.name in ("layer_norm", "rms_norm"))
    ],
    ids=str,
)
def test_the_axes_are_those_of_the_function(case, api):
    """In every layout of the table; the expected axes share one mean in its oracle."""
    name, options = FUNCTIONS[case.norm.name]
    axes = {"axis" if name == "BatchNorm" else "feature_axes": case.axis}
    if name in ("LayerNorm", "RMSNorm"):  # the modules' default differs from the functions'
        axes["reduction_axes"] = case.norm.over(case.layout)
    x = case.arrays()[0]
    if api == "linen":
        module = getattr(jn, name)(**axes, **options)
    else:
        number = int(np.prod(case.layout.feature_shape))
        module = getattr(jx, name)(number, **axes, **options, rngs=nnx.Rngs(0))
    spec = module.norm_spec(x)
    assert spec.feature_axes == case.features
    assert spec.reduction_axes == tuple(sorted(case.norm.over(case.layout)))
    assert spec.num_groups == options.get("num_groups")
    assert spec.train == options.get("train")
