"""What the norms without state have in common, and what is specific to each."""

import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

import jaxnorm
from jaxnorm import (
    batch_norm,
    batch_renorm,
    ema,
    filter_response_norm,
    group_norm,
    instance_norm,
    layer_norm,
    measure_groups,
    rms_norm,
)
from tests.support import oracle
from tests.support.cases import NORMS as TABLE
from tests.support.cases import rows

SHAPE = (3, 4, 6)
ROWS = {row.name: row for row in TABLE if row.alone}
NORMS = {name: functools.partial(row.function, **row.options) for name, row in ROWS.items()}
CENTRED = [name for name, row in ROWS.items() if row.centred]

arrays = hnp.arrays(np.float64, SHAPE, elements=st.floats(-100, 100))
# No group of values is nearly constant.
SPREAD = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 7
exact = {
    name: jax.jit(functools.partial(norm, epsilon=0.0)) for name, norm in NORMS.items()
}
X = np.float32(np.random.default_rng(0).normal(size=SHAPE))


def each(norms):
    return pytest.mark.parametrize("name", norms)


@each(NORMS)
@given(arrays, st.permutations(range(SHAPE[0])))
def test_a_sample_does_not_see_the_others(name, x, order):
    with jax.enable_x64(True):
        y = exact[name](x)
        order = np.array(order)
        np.testing.assert_array_equal(exact[name](x[order]), y[order])
        alone = x.copy()
        alone[1:] = 7
        np.testing.assert_array_equal(exact[name](alone)[0], y[0])


@each(NORMS)
@given(arrays, st.floats(0.01, 100))
def test_the_size_of_each_sample_does_not_matter(name, x, a):
    with jax.enable_x64(True):
        x = x + 1000 * SPREAD
        sizes = np.array([a, 1.0, 1 / a])[:, None, None]
        np.testing.assert_allclose(exact[name](sizes * x), exact[name](x), atol=1e-9)


@each(CENTRED)
@given(arrays, st.floats(-100, 100))
def test_a_shift_of_what_is_normalised_together_does_not_matter(name, x, b):
    with jax.enable_x64(True):
        x = x + 1000 * SPREAD
        np.testing.assert_allclose(exact[name](x + b), exact[name](x), atol=1e-9)


@given(arrays)
def test_rms_norm_is_layer_norm_where_there_is_no_mean(x):
    with jax.enable_x64(True):
        x = x + 1000 * SPREAD
        x = x - x.mean(-1, keepdims=True)
        np.testing.assert_allclose(exact["rms_norm"](x), exact["layer_norm"](x), atol=1e-9)


@each(CENTRED)
@pytest.mark.parametrize("constant", [0.0, -0.1, 7.7, 1e6 + 0.3, 1e20, 3e38])
def test_constants_give_the_bias(name, constant):
    x = np.full((2, 59, 6), np.float32(constant))
    bias = jnp.arange(6.0)
    y = NORMS[name](x, None, bias, epsilon=0.0)
    np.testing.assert_array_equal(y, jnp.broadcast_to(bias, y.shape))


def test_zeros_have_no_root_mean_square_to_divide_by():
    np.testing.assert_array_equal(
        rms_norm(jnp.zeros((2, 3)), epsilon=0.0), jnp.zeros((2, 3))
    )


@each(NORMS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_is_seen_where_it_counts_and_nowhere_else(name, poison):
    x = X.copy()
    x[1, 2, 3] = poison
    other = X.copy()
    other[1, 2, 3] += 1  # what it counts for
    y, clean = NORMS[name](x), NORMS[name](X)
    seen = np.asarray(NORMS[name](other) != clean)
    assert 1 < seen.sum() <= X[1].size
    assert np.isnan(np.asarray(y)[1, 2, 3])
    assert (np.asarray(y)[seen] != np.asarray(clean)[seen]).all()
    np.testing.assert_array_equal(np.asarray(y)[~seen], np.asarray(clean)[~seen])


@each(NORMS)
def test_has_the_signature_of_the_contract(name):
    norm = ROWS[name].function
    defaults = {k: p.default for k, p in inspect.signature(norm).parameters.items()}
    common = {
        "scale": None,
        "bias": None,
        "feature_axes": -1,
        "epsilon": 1e-6,
        "weights": None,
    }
    assert defaults.items() >= common.items()
    kinds = [p.kind for p in inspect.signature(norm).parameters.values()]
    assert kinds == 3 * [kinds[0]] + (len(kinds) - 3) * [inspect.Parameter.KEYWORD_ONLY]


@pytest.mark.parametrize("axis", rows([1, -1, (1, 3)], [(1, 3)]))
@pytest.mark.slow
def test_groups_are_of_neighbours_in_the_order_of_the_feature_axes(axis, rng):
    x = np.float32(rng.normal(size=(3, 4, 5, 2)))
    features = tuple(i % 4 for i in np.atleast_1d(axis))
    sizes = tuple(x.shape[each] for each in features)
    one, zero = np.ones(sizes), np.zeros(sizes)
    reduced = tuple(i for i in (1, 2, 3) if i not in features)
    expected = oracle.group_norm(
        x,
        one,
        zero,
        x,
        reduced=reduced,
        features=features,
        groups=2,
        epsilon=1e-6,
        weights=None,
    )
    y = group_norm(x, num_groups=2, feature_axes=axis)
    np.testing.assert_allclose(y, expected.y, atol=1e-5)
    size = int(np.prod(sizes)) // 2
    same = group_norm(x, num_groups=None, group_size=size, feature_axes=axis)
    np.testing.assert_array_equal(y, same)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("features", [2, (0, 2)])
def test_derivatives_of_the_moments_of_groups_equal_finite_differences(
    rng, features, weighted
):
    """Including the count, and with respect to the weights."""
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(1, 2, (2, 3, 4)))
        weights = jnp.asarray(rng.uniform(0.5, 2, (2, 3, 1))) if weighted else None
        arguments = (x, weights) if weighted else (x,)
        moments = jax.jit(lambda x, w=None: measure_groups(x, 1, features, 2, w))
        check_grads(moments, arguments, order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.slow
def test_derivatives_of_the_moments_about_zero_equal_finite_differences(rng, weighted):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(1, 2, (5, 3)))
        weights = jnp.asarray(rng.uniform(0.5, 2, (5, 1))) if weighted else None
        arguments = (x, weights) if weighted else (x,)
        moments = jax.jit(lambda x, w=None: jaxnorm.measure_about_zero(x, 0, w))
        check_grads(moments, arguments, order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize(
    ("norm", "options", "error", "message"),
    [
        (group_norm, {"num_groups": 4}, ValueError, "num_groups=4 does not divide the 6"),
        (group_norm, {"num_groups": 0}, ValueError, r"give one of \[1, 2, 3, 6\]"),
        (group_norm, {}, ValueError, "num_groups=32 does not divide"),
        (group_norm, {"group_size": 2}, ValueError, "num_groups=32 and group_size=2"),
        (group_norm, {"num_groups": None}, ValueError, "exactly one is expected"),
        (
            group_norm,
            {"num_groups": 2, "feature_axes": 0},
            ValueError,
            "includes the first axis",
        ),
        (instance_norm, {"reduction_axes": (1, 2)}, ValueError, r"reduction_axes=\(1,\)"),
        (instance_norm, {"feature_axes": (0, 2)}, ValueError, "by default is the batch"),
        (layer_norm, {"reduction_axes": (1, -2)}, ValueError, "more than once"),
        (layer_norm, {"epsilon": -1.0}, ValueError, "must be at least 0"),
        (rms_norm, {"rounding": "thrice"}, ValueError, "'once', 'twice'"),
        (rms_norm, {"dtype": jnp.int32}, TypeError, "the output of a norm is real"),
        (rms_norm, {"axis_index_groups": [[0]]}, ValueError, "axis_name= is missing"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused_with_the_mend(norm, options, error, message):
    with pytest.raises(error, match=message):
        norm(X, **options)


def trained(x, *affine):
    average = ema(0.9)
    state = average.init(x.shape[-1:])
    return batch_norm(x, state, *affine, train=True, estimator=average)[0]


SINGLE = {
    "instance": (instance_norm, X[:, 0]),
    "instance of one position": (instance_norm, X[:, :1]),
    "group": (functools.partial(group_norm, num_groups=6), X[:, 0]),
    "layer": (functools.partial(layer_norm, reduction_axes=()), X),
    "layer of one feature": (layer_norm, X[..., :1]),
    "batch": (trained, X[0, 0]),
    "batch of one": (trained, X[:1, :1]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_value_gives_the_bias_and_a_warning(name):
    """As flax's norms do, without the warning; torch refuses some of these."""
    norm, x = SINGLE[name]
    scale, bias = jnp.full(x.shape[-1], 2.0), 0.5 + jnp.arange(1.0, x.shape[-1] + 1)
    with pytest.warns(UserWarning, match=r"a single element.*give x an axis of samples"):
        y = norm(x, scale, bias)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, x.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradients = jax.grad(lambda *each: jnp.sum(jnp.sin(norm(*each))), (0, 1, 2))(
            x, scale, bias
        )
    assert not np.any(gradients[0])
    assert not np.any(gradients[1])
    total = np.cos(np.broadcast_to(bias, x.shape)).reshape(-1, x.shape[-1]).sum(0)
    np.testing.assert_allclose(gradients[2], total, rtol=1e-5)


def test_no_warning_where_single_values_have_a_meaning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filter_response_norm(X[:, 0])
        average = ema(0.9)
        state = average.init((6,))
        batch_renorm(X[:1, 0], state, train=True, estimator=average)
        batch_norm(X[:1, 0], state, train=False, update=True, estimator=average)
        jax.vmap(
            lambda x: batch_norm(
                x, state, train=True, update=False, axis_name="batch", epsilon=1.0
            )[0],
            axis_name="batch",
        )(X[:, 0])


@pytest.mark.slow
def test_a_group_of_several_features_needs_no_positions():
    y = group_norm(X[:, 0], num_groups=2, epsilon=0.0)
    halves = np.asarray(y).reshape(3, 2, 3)
    np.testing.assert_allclose(halves.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(halves.std(-1), 1, rtol=1e-5)


@each(NORMS)
def test_an_empty_batch_has_an_empty_output(name):
    assert NORMS[name](X[:0]).shape == (0, *SHAPE[1:])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1, -1, 4), ValueError, "num_groups=4 does not divide the 6 channels"),
        ((1, -1, 2.0), TypeError, "an integer is expected"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_groups_that_cannot_be_measured_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        measure_groups(X, *arguments)


@pytest.mark.usefixtures("unchecked")
def test_axes_may_be_an_array():
    with_array = layer_norm(X, feature_axes=np.array([1, 2]))
    np.testing.assert_array_equal(with_array, layer_norm(X, feature_axes=(1, 2)))
