"""Single torch norms, from states made with NumPy, compared with oracles."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm
import jaxnorm.linen as jn
from jaxnorm.interop import torch as interop

SCALE, BIAS, MEAN, VAR = np.float32([[1, 2], [3, 4], [5, 6], [7, 8]])
STATE = {
    "weight": SCALE,
    "bias": BIAS,
    "running_mean": MEAN,
    "running_var": VAR,
    "num_batches_tracked": np.int64(9),
}
AFFINE = {"weight": SCALE, "bias": BIAS}
X = np.float32(np.random.default_rng(0).normal(1, 2, (3, 5, 2)))


def module(norm):
    return getattr(jn, norm.module)(**norm.options)


def train(function, *arguments, **options):
    """Compiles the whole, because running operation by operation takes longer."""
    return jax.jit(partial(function, train=True, **options))(*arguments)


def test_batch_norm_evaluates_and_goes_on_as_torch_does():
    """The decay is 1 − momentum, and the running variance is m/(m − 1)·σ²."""
    norm = interop.batch_norm(STATE, momentum=0.25, epsilon=1e-3)
    y = module(norm).apply(norm.variables, X, train=False)
    wanted = SCALE * (X - MEAN) / np.sqrt(VAR + 1e-3) + BIAS
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)

    _, updates = train(module(norm).apply, norm.variables, X, mutable=["batch_stats"])
    statistics = updates["batch_stats"]
    samples = X.reshape(-1, 2)
    mean = 0.75 * MEAN + 0.25 * samples.mean(0)
    var = 0.75 * VAR + 0.25 * samples.var(0, ddof=1)
    np.testing.assert_allclose(statistics["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], var, rtol=1e-5)
    np.testing.assert_equal(interop.to_state(norm), STATE)


def test_a_momentum_of_none_is_the_mean_of_all_batches():
    norm = interop.batch_norm(STATE, momentum=None)
    assert norm.options["estimator"] == jaxnorm.cumulative(unbiased=True)
    assert norm.batch_stats["updates"].tolist() == [9, 9]
    np.testing.assert_equal(interop.to_state(norm), STATE)
    later = norm.batch_stats | {"updates": jnp.full(2, 12)}
    state = interop.to_state(dataclasses.replace(norm, batch_stats=later), "bn")
    assert state["bn.num_batches_tracked"] == 12
    assert state["bn.num_batches_tracked"].dtype == np.int64

    old = {name: each for name, each in STATE.items() if "tracked" not in name}
    with pytest.raises(ValueError, match=r"num_batches_tracked is missing.*with 0 to"):
        interop.batch_norm(old, momentum=None)


@pytest.mark.parametrize("left", [("weight",), ("bias",), ("weight", "bias")])
def test_parameters_may_be_left_out(left):
    state = {name: each for name, each in STATE.items() if name not in left}
    norm = interop.batch_norm(state)
    assert norm.options["use_scale"] == ("weight" in state)
    assert norm.options["use_bias"] == ("bias" in state)
    np.testing.assert_equal(interop.to_state(norm), state)


def test_without_statistics_the_batch_normalises_always():
    norm = interop.batch_norm({"bn.weight": SCALE, "bn.bias": BIAS, "fc.bias": BIAS}, "bn")
    y = module(norm).apply(norm.variables, X)
    wanted = jaxnorm.instance_norm(X.reshape(1, -1, 2), SCALE, BIAS, epsilon=1e-5)
    np.testing.assert_allclose(y, wanted.reshape(X.shape), rtol=1e-5, atol=1e-5)


def test_instance_norm_without_statistics():
    norm = interop.instance_norm(AFFINE)
    assert norm.module == "InstanceNorm"
    affine = {"use_scale": True, "use_bias": True}
    assert norm.options == affine | {"epsilon": 1e-5, "feature_axes": -1}


def test_instance_norm_with_statistics():
    """Training normalises each sample by itself; evaluation uses running statistics."""
    norm = interop.instance_norm(STATE)
    assert norm.module == "BatchNorm"
    wanted = SCALE * (X - MEAN) / np.sqrt(VAR + 1e-5) + BIAS
    y = module(norm).apply(norm.variables, X, train=False)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    of_each = SCALE * (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True) + BIAS
    statistics = jaxnorm.Statistics(norm.batch_stats["mean"], norm.batch_stats["var"])
    y, after = train(interop.tracked_instance_norm, X, statistics, SCALE, BIAS)
    np.testing.assert_allclose(y, of_each, rtol=1e-3, atol=1e-4)
    y, _ = train(module(norm).apply, norm.variables, X, mutable=["batch_stats"])
    np.testing.assert_allclose(y, of_each, rtol=1e-3, atol=1e-4)
    mean = 0.9 * MEAN + 0.1 * X.mean((0, 1))
    var = 0.9 * VAR + 0.1 * X.var(1, ddof=1).mean(0)
    np.testing.assert_allclose(after.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(after.var, var, rtol=1e-5)

    assert interop.instance_norm(STATE, momentum=None).options["estimator"].decay == 1


def test_norms_over_the_last_axes():
    weight = np.ones((5, 2), np.float32)
    norm = interop.layer_norm({"weight": weight, "bias": weight})
    y = module(norm).apply(norm.variables, X)
    over = {"axis": (1, 2), "keepdims": True}
    wanted = (X - X.mean(**over)) / X.std(**over) + 1
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    assert interop.layer_norm({}, rank=3).options["feature_axes"] == (-3, -2, -1)
    norm = interop.rms_norm({"weight": weight}, epsilon=0.5)
    wanted = X / np.sqrt(np.square(X).mean(**over) + 0.5)
    np.testing.assert_allclose(module(norm).apply(norm.variables, X), wanted, rtol=1e-5)


def test_group_norm():
    norm = interop.group_norm({"weight": SCALE}, num_groups=1)
    assert norm.module == "GroupNorm"
    affine = {"use_scale": True, "use_bias": False}
    assert norm.options == affine | {"epsilon": 1e-5, "num_groups": 1}


@pytest.mark.parametrize(
    ("dtype", "epsilon"),
    [("float16", 2**-23), ("bfloat16", 2**-23), ("float32", 2**-23), ("float64", 2**-52)],
)
def test_an_epsilon_of_none(dtype, epsilon):
    assert interop.rms_norm({}, dtype=jnp.dtype(dtype)).options["epsilon"] == epsilon


def test_what_is_of_no_norm_is_refused():
    for state, repair in (
        (STATE | {"in_proj": SCALE}, r"left over: in_proj \(2,\)"),
        (STATE | {"weight": BIAS[:1]}, "all arrays of a norm have the same shape"),
        (AFFINE | {"running_mean": MEAN}, "running_mean and running_var, or neither"),
        (STATE | {"weight": SCALE.astype(np.float64)}, "jax_enable_x64"),
        (STATE | {"num_batches_tracked": np.int64(2**31)}, "not a number of batches"),
    ):
        with pytest.raises(ValueError, match=repair):
            interop.batch_norm(state, momentum=None)
    with pytest.raises(ValueError, match=r"no name starts with 'bn\.'"):
        interop.batch_norm(STATE, "bn")
    with pytest.raises(ValueError, match="left over: running_mean"):
        interop.layer_norm(STATE)
    with pytest.raises(ValueError, match="torch's momentum is 1 − decay"):
        interop.batch_norm(STATE, momentum=1.5)


@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_an_epsilon_below_zero_is_refused(epsilon):
    """Before a model is built with it."""
    for norm in (interop.batch_norm, interop.layer_norm, interop.rms_norm):
        state = STATE if norm is interop.batch_norm else {"weight": SCALE}
        with pytest.raises(ValueError, match="must be at least 0"):
            norm(state, epsilon=epsilon)
