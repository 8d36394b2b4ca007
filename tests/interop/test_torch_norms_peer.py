"""Compares with torch's own norms: evaluation, and statistics after the same batches."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.interop import torch as interop

torch = pytest.importorskip("torch", reason="torch is not installed")
from tests.interop.torch_models import (  # noqa: E402
    evaluate,
    first,
    last,
    randomize,
    state_of,
    train,
)

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("lenient")]
C, STEPS = 4, 3


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


def batches(rank, rng):
    shape = (STEPS + 1, 5, *(3, 4, 2)[: rank - 2], C)
    return rng.normal(1, 2, shape).astype(np.float32)


FOLLOWED = {"track_running_stats": True}
TRACKED = [
    ("BatchNorm1d", 2, {}),
    ("BatchNorm1d", 3, {}),
    ("BatchNorm2d", 4, {}),
    ("BatchNorm3d", 5, {}),
    ("SyncBatchNorm", 4, {}),
    ("BatchNorm2d", 4, {"momentum": 0.3, "eps": 1e-2, "affine": False}),
    ("BatchNorm2d", 4, {"momentum": None, "bias": False}),
    ("InstanceNorm1d", 3, FOLLOWED),
    ("InstanceNorm2d", 4, FOLLOWED | {"momentum": 0.3, "affine": True}),
    ("InstanceNorm3d", 5, FOLLOWED | {"momentum": None}),
]


def converted(module, name, arguments):
    function = interop.instance_norm if "Instance" in name else interop.batch_norm
    mapped = {"momentum": "momentum", "eps": "epsilon"}
    options = {mapped[key]: arguments[key] for key in mapped if key in arguments}
    return function(state_of(module), **options)


@pytest.mark.parametrize(("name", "rank", "arguments"), TRACKED)
def test_norms_with_running_statistics(name, rank, arguments, rng):
    """Starts from random values, then trains both with the same batches."""
    module, x = getattr(torch.nn, name)(C, **arguments), batches(rank, rng)
    randomize(module)
    train(module, [first(x[-1])])  # so that num_batches_tracked is not 0

    norm = converted(module, name, arguments)
    ours = getattr(jn, norm.module)(**norm.options)
    wanted = evaluate(module, first(x[0]))
    close(ours.apply(norm.variables, x[0], train=False), last(wanted))
    np.testing.assert_equal(interop.to_state(norm), state_of(module))

    statistics = norm.batch_stats
    for batch in x[:STEPS]:
        wanted = train(module, [first(batch)])
        variables = norm.variables | {"batch_stats": statistics}
        y, updates = ours.apply(variables, batch, train=True, mutable=["batch_stats"])
        statistics = updates["batch_stats"]
        close(y, last(wanted))
    after = state_of(module)
    close(statistics["mean"], after["running_mean"])
    if "Instance" not in name:
        close(statistics["var"], after["running_var"])
    if "updates" in statistics:
        trained = dataclasses.replace(norm, batch_stats=statistics)
        state = interop.to_state(trained)
        assert state["num_batches_tracked"] == after["num_batches_tracked"]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_of_instances(momentum, rng):
    """`tracked_instance_norm` also updates the variance as torch does."""
    module = torch.nn.InstanceNorm2d(
        C, track_running_stats=True, affine=True, momentum=momentum
    )
    x = batches(4, rng)
    norm = converted(module, "InstanceNorm", {"momentum": momentum})
    statistics = norm.options["estimator"].init((C,))
    for batch in x:
        wanted = train(module, [first(batch)])
        y, statistics = interop.tracked_instance_norm(
            batch, statistics, train=True, estimator=norm.options["estimator"]
        )
        close(y, last(wanted))
    after = state_of(module)
    close(statistics.mean, after["running_mean"])
    close(statistics.var, after["running_var"])


STATELESS = [
    ("LayerNorm", (C,), {}, interop.layer_norm, {}),
    ("LayerNorm", (C,), {"elementwise_affine": False}, interop.layer_norm, {}),
    (
        "LayerNorm",
        (C,),
        {"bias": False, "eps": 1e-2},
        interop.layer_norm,
        {"epsilon": 1e-2},
    ),
    ("LayerNorm", (4, C), {}, interop.layer_norm, {}),
    (
        "LayerNorm",
        (4, C),
        {"elementwise_affine": False},
        interop.layer_norm,
        {"rank": 2},
    ),
    ("RMSNorm", (C,), {}, interop.rms_norm, {}),
    ("RMSNorm", (4, C), {"eps": 1e-2}, interop.rms_norm, {"epsilon": 1e-2}),
    ("RMSNorm", (C,), {"elementwise_affine": False}, interop.rms_norm, {}),
]


@pytest.mark.parametrize(("name", "shape", "arguments", "function", "options"), STATELESS)
def test_norms_of_the_last_axes(name, shape, arguments, function, options, rng):
    module, x = getattr(torch.nn, name)(shape, **arguments), batches(4, rng)
    # So small that epsilon matters.
    small = x[0] * 1e-3
    randomize(module)
    norm = function(state_of(module), **options)
    ours = getattr(jn, norm.module)(**norm.options)
    close(ours.apply(norm.variables, small), evaluate(module, small))
    np.testing.assert_equal(interop.to_state(norm), state_of(module))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_epsilon_of_none(dtype):
    """Derives torch's default epsilon from its output for a constant x."""
    x = torch.full((1, 4), 1e-4, dtype=getattr(torch, dtype))
    y = torch.nn.RMSNorm(4, elementwise_affine=False, dtype=x.dtype)(x)
    epsilon = interop.rms_norm({}, dtype=dtype).options["epsilon"]
    square = float(x[0, 0]) ** 2
    np.testing.assert_allclose(
        float(y[0, 0]), (square / (square + epsilon)) ** 0.5, rtol=5e-3
    )


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["group", "1d", "2d", "3d"])
def test_norms_of_positions(kind, affine, rng):
    rank = 4 if kind == "group" else 2 + int(kind[0])
    x = batches(rank, rng)[0]
    if kind == "group":
        module = torch.nn.GroupNorm(2, C, affine=affine, eps=1e-2)
        randomize(module)
        norm = interop.group_norm(state_of(module), num_groups=2, epsilon=1e-2)
    else:
        module = getattr(torch.nn, f"InstanceNorm{kind}")(C, affine=affine)
        randomize(module)
        norm = interop.instance_norm(state_of(module))
    ours = getattr(jn, norm.module)(**norm.options)
    close(ours.apply(norm.variables, x), last(evaluate(module, first(x))))
    np.testing.assert_equal(interop.to_state(norm), state_of(module))


def test_a_batch_norm_without_statistics(rng):
    x = batches(4, rng)[0]
    module = torch.nn.BatchNorm2d(C, track_running_stats=False)
    randomize(module)
    norm = interop.batch_norm(state_of(module))
    wanted = last(evaluate(module, first(x)))
    close(jn.BatchNorm(**norm.options).apply(norm.variables, x), wanted)
    theirs = jx.BatchNorm(C, **norm.options, rngs=nnx.Rngs(0))
    theirs.scale[...], theirs.bias[...] = norm.params["scale"], norm.params["bias"]
    close(theirs(x), wanted)
    np.testing.assert_equal(interop.to_state(norm), state_of(module))


def test_channels_first_may_stay(rng):
    x = first(batches(4, rng)[0])
    module = torch.nn.BatchNorm2d(C)
    randomize(module)
    norm = interop.batch_norm(state_of(module), axis=1)
    ours = jax.jit(jn.BatchNorm(**norm.options, train=False).apply)
    close(ours(norm.variables, x), evaluate(module, x))
