"""Cases in which flax is wrong: tests show that it is, and that our modules are right."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.modules.apis import LINEN, NNX, each_api, each_norm, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)
# RMSNorm subtracts no mean, so nothing can cancel.
CENTRED = ["BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm"]


def arguments(norm):
    return {"num_groups": 3} if norm == "GroupNorm" else {}


@each_api
@pytest.mark.parametrize("norm", CENTRED)
def test_a_large_mean_does_not_cancel(api, norm):
    x = 1e4 + X
    models = api.pair(norm, x, **arguments(norm))
    ours, theirs = (np.std(model(x, **training(norm))) for model in models)
    np.testing.assert_allclose(ours, 1, rtol=1e-3)
    assert theirs > 10


@each_api
@each_norm
def test_a_mask_of_nothing_gives_the_bias_and_updates_nothing(api, norm):
    ours, theirs = api.pair(norm, X, **arguments(norm))
    call = {"mask": jnp.zeros(X.shape, bool), **training(norm)}
    y, statistics = ours.apply(ours.variables, X, **call)
    chex.assert_trees_all_equal(y, jnp.zeros_like(X))  # equal to the bias
    chex.assert_trees_all_equal(statistics, ours.variables["batch_stats"])
    flax_y, spoilt = theirs.apply(theirs.variables, X, **call)
    assert jnp.isnan(flax_y).all()
    assert all(jnp.isnan(each).all() for each in jax.tree.leaves(spoilt))


@each_api
@each_norm
def test_nan_behind_a_mask_reaches_no_gradient(api, norm):
    # The mask selects along axis 1, which every norm reduces with these arguments.
    axes = {"reduction_axes": (1, 2)} if norm in ("LayerNorm", "RMSNorm") else {}
    mask = jnp.broadcast_to(jnp.arange(3)[:, None] < 2, X.shape)
    x = jnp.where(mask, X, jnp.nan)

    def gradient(model):
        def loss(params):
            variables = model.variables | {"params": params}
            y, _ = model.apply(variables, x, mask=mask, **training(norm))
            return jnp.sum(jnp.where(mask, jnp.sin(y), 0))

        return jax.grad(loss)(model.variables["params"])["scale"]

    ours, theirs = map(gradient, api.pair(norm, x, **axes, **arguments(norm)))
    chex.assert_tree_all_finite(ours)
    assert jnp.isnan(jax.tree.leaves(theirs)[0]).all()


@each_api
@pytest.mark.parametrize("norm", ["BatchNorm", "LayerNorm"])
def test_a_mask_of_nothing_has_no_gradient(api, norm):
    mask = jnp.zeros(X.shape, bool)

    def gradients(model):
        def loss(params, x):
            variables = model.variables | {"params": params}
            y, _ = model.apply(variables, x, mask=mask, **training(norm))
            return jnp.sum(jnp.where(mask, jnp.sin(y), 0))

        both = jax.jit(jax.grad(loss, argnums=(0, 1)))
        params, x = both(model.variables["params"], X)
        return params["scale"], x

    ours, theirs = map(gradients, api.pair(norm, X))
    assert all((each == 0).all() for each in jax.tree.leaves(ours))
    assert all(jnp.isnan(each).all() for each in jax.tree.leaves(theirs))


@pytest.mark.slow
def test_group_norm_of_nnx_takes_further_axes_before_the_positions():
    """Flax repeats the moments of groups along axis 1, and reshapes the result."""
    x = normal(4, 3, 2, 6)
    (ours, theirs), (expected, _) = (
        api.pair("GroupNorm", x, num_groups=3, reduction_axes=(2, 3))
        for api in (NNX, LINEN)
    )
    chex.assert_trees_all_close(ours(x), expected(x), rtol=1e-5, atol=1e-5)
    assert jnp.abs(theirs(x) - expected(x)).max() > 0.5


def test_batch_norm_of_nnx_keeps_the_running_statistics_in_float32():
    """A mean of 101.25 is off by 0.25 in bfloat16."""
    x = 100.25 + normal(4096, 2)
    models = NNX.pair("BatchNorm", x, dtype=jnp.bfloat16, momentum=0.0)
    statistics = {"mean": x.mean(0), "var": x.var(0)}

    def mean(model):
        filled = jax.tree.unflatten(
            jax.tree.structure(model.variables["batch_stats"]), jax.tree.leaves(statistics)
        )
        variables = model.variables | {"batch_stats": filled}
        y, _ = model.apply(variables, x, use_running_average=True)
        return np.abs(y.astype(jnp.float32).mean(0)).max()

    ours, theirs = map(mean, models)
    assert ours < 0.02
    assert theirs > 0.1


def test_batch_norm_of_nnx_trains_with_features_on_two_axes():
    ours, theirs = NNX.pair("BatchNorm", X, 18, axis=(1, 2))
    expected, _ = LINEN.pair("BatchNorm", X, axis=(1, 2))
    call = training("BatchNorm")
    chex.assert_trees_all_close(ours(X, **call), expected(X, **call), rtol=1e-6)
    with pytest.raises(ValueError, match="Incompatible shapes"):
        theirs(X, **call)


@each_norm
def test_linen_reduces_in_float32_also_when_it_is_not_forced_to(norm):
    x = (16 + X).astype(jnp.bfloat16)
    exact, _ = LINEN.pair(norm, x, **arguments(norm))
    ours, theirs = LINEN.pair(norm, x, force_float32_reductions=False, **arguments(norm))
    expected, y, flax_y = (
        model(x, **training(norm)).astype(jnp.float32) for model in (exact, ours, theirs)
    )
    chex.assert_trees_all_equal(y, expected)
    assert jnp.abs(flax_y - expected).max() > 1e-3


def test_linen_keeps_the_dtype_of_statistics_when_it_updates_them():
    coarse = {"param_dtype": jnp.bfloat16, "force_float32_reductions": False}
    models = LINEN.pair("BatchNorm", X, **coarse)
    ours, theirs = (
        model.apply(model.variables, X, use_running_average=False)[1]["mean"].dtype
        for model in models
    )
    assert ours == jnp.bfloat16
    assert theirs == jnp.float32


@each_api
def test_a_mask_of_groups_need_not_name_the_features(api):
    mask = jnp.arange(3)[:, None] < 2
    ours, theirs = api.pair("GroupNorm", X, num_groups=3)
    whole = jnp.broadcast_to(mask, X.shape)
    chex.assert_trees_all_close(ours(X, mask=mask), ours(X, mask=whole), rtol=1e-6)
    with pytest.raises(TypeError, match="cannot reshape"):
        theirs(X, mask=mask)


def test_nnx_takes_a_mask_of_numbers():
    mask = (X > 0).astype(jnp.int32)
    ours, theirs = NNX.pair("LayerNorm", X)
    chex.assert_trees_all_equal(ours(X, mask=mask), ours(X, mask=mask == 1))
    with pytest.raises(ValueError, match="boolean"):
        theirs(X, mask=mask)


def test_nnx_tells_an_input_of_other_features_where_flax_computes():
    """Flax repeats the moments of one feature, or fails inside jax."""
    ours, _ = NNX.pair("LayerNorm", X)
    with pytest.raises(ValueError, match="num_features=6"):
        ours(X[..., :1])


def test_a_float16_input_may_be_computed_in_bfloat16():
    ours, theirs = NNX.pair("LayerNorm", X, dtype=jnp.bfloat16)
    assert ours(X.astype(jnp.float16)).dtype == jnp.bfloat16
    chex.assert_trees_all_close(
        *(m(X.astype(jnp.float16)).astype(jnp.float32) for m in (ours, theirs)), atol=3e-2
    )


def test_nnx_widens_what_has_no_parameters_only_where_flax_does():
    without = {"use_scale": False, "use_bias": False}
    coarse = X.astype(jnp.bfloat16)
    for norm in ("BatchNorm", "LayerNorm"):
        ours, theirs = NNX.pair(norm, coarse, **without)
        assert ours(coarse).dtype == theirs(coarse).dtype


@each_api
@pytest.mark.slow
def test_group_norm_takes_a_lone_example(api):
    """As in flax's Linen; its NNX repeats moments along an axis that does not exist."""
    lone = X[0, 0]
    ours, theirs = api.pair("GroupNorm", lone, num_groups=3)
    expected, _ = LINEN.pair("GroupNorm", X, num_groups=3, reduction_axes=-1)
    chex.assert_trees_all_close(ours(lone), expected(X)[0, 0], rtol=1e-6)
    if api is LINEN:
        chex.assert_trees_all_close(ours(lone), theirs(lone), rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="out of bounds"):
            theirs(lone)


@each_api
def test_a_mask_protects_the_outputs_of_evaluation_too(api):
    mask = jnp.arange(4)[:, None, None] < 3
    poisoned = jnp.where(mask, X, jnp.nan)
    ours, theirs = (
        model(poisoned, use_running_average=True, mask=mask)
        for model in api.pair("BatchNorm", X)
    )
    chex.assert_trees_all_equal(ours[3], jnp.zeros_like(X[3]))  # equal to the bias
    assert jnp.isnan(theirs[3]).all()


@each_api
@pytest.mark.parametrize(
    ("norm", "x", "arguments"),
    [
        ("InstanceNorm", X[0], {}),
        ("BatchNorm", X[0, 0], {}),
        ("BatchNorm", X[:1, 0], {}),
        ("GroupNorm", X[0], {"num_groups": X.shape[-1]}),
        ("LayerNorm", X[..., :1], {}),
    ],
)
def test_single_values_are_taken_as_by_flax(api, norm, x, arguments):
    """They give the bias, and in jaxnorm a warning."""
    ours, theirs = api.pair(norm, x, **arguments)
    with pytest.warns(UserWarning, match="a single element"):
        y, statistics = ours.apply(ours.variables, x, **training(norm))
    expected, others = theirs.apply(theirs.variables, x, **training(norm))
    chex.assert_trees_all_close(y, expected, atol=1e-6)
    for one, other in zip(
        jax.tree.leaves(statistics), jax.tree.leaves(others), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_traced_momentum_is_taken_as_by_flax():
    def trained(library, momentum):
        norm = library.BatchNorm(momentum=momentum, use_running_average=False)
        variables = norm.init(jax.random.key(0), X)
        return norm.apply(variables, X, mutable=["batch_stats"])[1]["batch_stats"]

    ours, theirs = (
        jax.jit(functools.partial(trained, library))(0.8) for library in (LINEN.ours, nn)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5)


@each_api
def test_a_momentum_may_be_a_schedule(api):
    schedule = optax.linear_schedule(0.0, 0.9, 9)
    model = api.model(api.ours.BatchNorm, X, 6, momentum=schedule)
    variables = model.variables
    for _ in range(2):
        _, statistics = model.apply(variables, X, **training("BatchNorm"))
        variables = variables | {"batch_stats": statistics}
    chex.assert_trees_all_close(
        jnp.asarray(statistics["mean"][...]), X.mean((0, 1)), rtol=1e-5
    )
    assert statistics["updates"][...].tolist() == [2] * 6


@each_api
@each_norm
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_taken_as_by_flax(api, norm, dtype):
    arguments = {"num_groups": 3} if norm == "GroupNorm" else {}
    x = (10 * X).clip(0, 255).astype(dtype)
    ours, theirs = api.pair(norm, x, **arguments)
    y = ours(x, **training(norm))
    assert y.dtype == jnp.float32
    chex.assert_trees_all_close(y, theirs(x, **training(norm)), rtol=1e-4, atol=1e-4)
