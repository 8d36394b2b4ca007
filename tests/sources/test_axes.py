"""Claims that compare the norms: which axes each reduces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm.linen as jn
from tests.sources.compiled import (
    TINY,
    group_norm,
    instance_norm,
    layer_norm,
    measure,
    normalize_batch,
)


@pytest.fixture
def x(rng):
    """Eight samples of five features with different means and standard deviations."""
    return np.float32(rng.normal([0, 9, -9, 3, 1], [1, 2, 3, 4, 5], (8, 5)))


@pytest.fixture
def images(rng):
    """Images of shape (N, H, W, C), with different sizes."""
    return np.float32(rng.normal(size=(5, 3, 2, 8)))


def test_row_17_layer_norm_takes_one_sample_and_all_its_features(x):
    y = layer_norm(x, epsilon=TINY)
    for sample, out in zip(np.asarray(x), y, strict=True):
        np.testing.assert_allclose(out, (sample - sample.mean()) / sample.std(), rtol=1e-4)
    other = np.asarray(x).copy()
    other[3, 1] += 1
    changed = np.asarray(layer_norm(other, epsilon=TINY) != y)
    np.testing.assert_array_equal(changed, np.arange(8)[:, None] == [3] * 5)


def test_row_33_batch_norm_steadies_the_batch_axis_and_layer_norm_the_hidden_axis(x):
    for norm, steadied in ((normalize_batch, 0), (layer_norm, 1)):
        y = np.asarray(norm(x, epsilon=TINY))
        np.testing.assert_allclose(y.mean(steadied), 0, atol=1e-6)
        np.testing.assert_allclose(y.std(steadied), 1, rtol=1e-5)
        assert (abs(y.mean(1 - steadied)) > 1e-3).all()
        assert (abs(y.std(1 - steadied) - 1) > 1e-3).all()


NORMS = {
    "batch, N·H·W": (normalize_batch, (0, 1, 2), 5 * 3 * 2),
    "layer, C·H·W": (
        lambda x: layer_norm(x, reduction_axes=(1, 2, 3)),
        (1, 2, 3),
        8 * 3 * 2,
    ),
    "instance, H·W": (instance_norm, (1, 2), 3 * 2),
    # for four groups; measured on (N, H, W, g, C/g)
    "group, (C/g)·H·W": (lambda x: group_norm(x, num_groups=4), (1, 2, 4), 2 * 3 * 2),
}


@pytest.mark.parametrize(("norm", "axes", "count"), NORMS.values(), ids=NORMS)
def test_row_36_over_how_many_elements_the_means_go(images, norm, axes, count):
    """An output depends on this many inputs; g is the number of groups, not their size."""
    split = images.reshape(5, 3, 2, 4, 2) if 4 in axes else images
    assert (np.asarray(measure(split, axes).count) == count).all()
    gradient = jax.jit(jax.grad(lambda x: norm(x)[1, 1, 1, 1]))(images)
    assert np.count_nonzero(gradient) == count


def test_row_36_group_norm_of_one_group_is_layer_norm_of_the_sample(images):
    one = group_norm(images, num_groups=1)
    np.testing.assert_allclose(one, layer_norm(images, reduction_axes=(1, 2, 3)), atol=1e-6)


def test_row_36_group_norm_of_as_many_groups_as_channels_is_instance_norm(images):
    each = group_norm(images, num_groups=8)
    np.testing.assert_allclose(each, instance_norm(images), atol=1e-6)


def test_row_36_batch_norm_of_one_sample_is_instance_norm(images):
    for sample in (images[:1], images[1:2]):
        alone = normalize_batch(sample, epsilon=1e-6)
        np.testing.assert_allclose(alone, instance_norm(sample), atol=1e-6)


def test_row_37_layer_norm_does_not_depend_on_the_batch(rng):
    """Nor on the sequence: each position has its own moments, for a text of any length."""
    positions = 100.0 * np.arange(6)[:, None]  # each with a different distribution
    text = np.float32(rng.normal(positions, 1 + positions, (4, 6, 16)))
    others = text * np.float32([1, -3, -3, -3])[:, None, None]
    np.testing.assert_array_equal(layer_norm(text)[0], layer_norm(others)[0])
    together = np.asarray(normalize_batch(text))
    assert (together[0] != normalize_batch(others)[0]).any()

    y = np.asarray(layer_norm(text, epsilon=TINY))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(-1), 1, rtol=1e-5)
    padded = np.pad(text, ((0, 0), (0, 3), (0, 0)))
    np.testing.assert_allclose(layer_norm(padded, epsilon=TINY)[:, :6], y, atol=1e-6)
    assert abs(normalize_batch(padded)[:, :6] - together).max() > 0.1


def test_row_38_layer_norm_drowns_a_feature_beside_one_of_another_kind(rng):
    """The source says one transform per layer, but each unit has its own gain and bias."""
    colour, size = rng.uniform(0, 1, 64), rng.uniform(0, 1000, 64)
    x = np.float32(np.stack([colour, size, size[::-1]], -1))
    assert np.std(normalize_batch(x)[:, 0]) == pytest.approx(1, rel=1e-5)
    # What remains in the colour's place depends on the sizes, and not on the colour.
    y = np.asarray(layer_norm(x))
    assert abs(np.corrcoef(y[:, 0], colour)[0, 1]) < 0.5
    grey = layer_norm(np.float32([0.5, 0, 0]) + x * np.float32([0, 1, 1]))
    np.testing.assert_allclose(y[:, 0], grey[:, 0], atol=0.1)

    variables = jax.eval_shape(jn.LayerNorm().init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, variables) == {"scale": (3,), "bias": (3,)}
    gain, bias = np.float32([1, 10, 0.1]), np.float32([-50, 0, 50])
    moved = np.asarray(layer_norm(x, gain, bias))
    np.testing.assert_allclose(moved, y * gain + bias, atol=1e-4)
    assert moved[:, 0].max() < moved[:, 1].min() < moved[:, 1].max() < moved[:, 2].min()


def order(x, axis):
    return np.argsort(np.asarray(x), axis)


def test_row_40_batch_norm_keeps_the_order_of_samples_and_layer_norm_of_features(x):
    gamma = np.float32([0.1, 1, 2, 3, 10])  # positive: a negative γ reverses the order
    for y in (normalize_batch(x), normalize_batch(x, gamma, gamma)):
        np.testing.assert_array_equal(order(y, 0), order(x, 0))
    np.testing.assert_array_equal(order(normalize_batch(x, -gamma), 0)[::-1], order(x, 0))
    np.testing.assert_array_equal(order(layer_norm(x), 1), order(x, 1))


def test_row_40_batch_norm_loses_the_order_of_features_and_layer_norm_of_samples():
    """Contrary to the source, layer norm also loses that of features if γ or β differ."""
    x = np.float32([[3, 10], [1, 20], [2, 30]])
    y = normalize_batch(x)
    assert x[0, 0] < x[0, 1]
    assert y[0, 0] > y[0, 1]

    x = np.float32([[1, 3, 2], [10, 20, 30]])
    y = layer_norm(x)
    assert x[0, 1] < x[1, 1]
    assert y[0, 1] > y[1, 1]

    y = layer_norm(x, np.float32([1, 2, 1]), np.float32([5, 0, 0]))
    assert x[0, 0] < x[0, 1]
    assert y[0, 0] > y[0, 1]


def test_row_41_the_three_by_three_example():
    """As x is symmetric, normalising rows gives the transpose; a constant gives 0."""
    x = np.float32([[4, 3, 2], [3, 3, 2], [2, 2, 2]])
    columns = [[1.224745, 0, -1.224745], [0.707107, 0.707107, -1.414214], [0, 0, 0]]
    np.testing.assert_allclose(normalize_batch(x).T, columns, atol=1e-6)
    np.testing.assert_allclose(layer_norm(x, epsilon=TINY), columns, atol=1e-6)
    for constant in (2.0, 0.1, 100.3):  # the mean of the last two is rounded
        same = np.full((7, 1), constant, np.float32)
        for y in (normalize_batch(same, epsilon=0.0), layer_norm(same.T, epsilon=0.0).T):
            np.testing.assert_array_equal(y, np.zeros((7, 1)))


def test_row_42_equal_inputs_of_one_feature_normalise_equally():
    x = np.float32([[[1, 4, 7], [0, 2, 4]], [[1, 3, 6], [2, 3, 1]]])
    _, mean, var = measure(x, reduction_axes=(0, 2))
    np.testing.assert_allclose(mean, [3.666667, 2], rtol=1e-6)
    np.testing.assert_allclose(var, [5.222222, 1.666667], rtol=1e-6)
    expected = [
        [[-1.16692, 0.145865, 1.45865], [-1.549193, 0, 1.549193]],
        [[-1.16692, -0.29173, 1.021055], [0, 0.774597, -0.774597]],
    ]
    y = normalize_batch(x, axis=1)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert y[0, 0, 0] == y[1, 0, 0]


def test_row_43_layer_norm_of_the_sample_and_of_its_rows():
    """The source says that NLP normalises row by row."""
    x = np.float32([[[1, 4, 7], [0, 2, 4]], [[1, 3, 6], [2, 3, 1]]])
    _, mean, var = measure(x, reduction_axes=(1, 2))
    np.testing.assert_allclose(mean, [3, 2.666667], rtol=1e-6)
    np.testing.assert_allclose(var, [5.333333, 2.888889], rtol=1e-6)
    sample = layer_norm(x, reduction_axes=(1, 2), epsilon=TINY)
    np.testing.assert_allclose(sample[0, 0], [-0.866025, 0.433013, 1.732051], atol=1e-6)
    rows = layer_norm(x, epsilon=TINY)
    np.testing.assert_allclose(rows[0, 0], [-1.224745, 0, 1.224745], atol=1e-6)
    np.testing.assert_allclose(
        rows, instance_norm(x, feature_axes=1, epsilon=TINY), atol=1e-6
    )


def test_row_54_convolutional_batch_norm_has_one_pair_a_feature_map(rng):
    x = np.float32(rng.normal(size=(2, 5, 4, 3)))
    initialize = jax.jit(jn.BatchNorm(train=True).init_with_output)
    y, variables = initialize(jax.random.key(0), x)
    assert (
        variables["params"]["scale"].shape == variables["batch_stats"]["var"].shape == (3,)
    )
    np.testing.assert_array_equal(measure(x, (0, 1, 2)).count, np.full(3, 2 * 5 * 4))
    for feature in range(3):
        each = x[..., feature]
        expected = (each - each.mean()) / np.sqrt(each.var() + 1e-5)
        np.testing.assert_allclose(y[..., feature], expected, atol=1e-5)
