"""Compares with keras's own layers: evaluation, statistics after training, and files."""

import os

import flax.linen as nn
import jax
import numpy as np
import pytest

import jaxnorm
import jaxnorm.linen as jn
from jaxnorm.interop import keras as interop

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="keras is not installed")

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("lenient")]
C, STEPS = 4, 3


def close(got, want):
    np.testing.assert_allclose(got, np.asarray(want), rtol=1e-4, atol=2e-5)


def listed(model):
    """All weights, by name."""
    return {weight.path: np.asarray(weight) for weight in model.weights}


def randomize(model, seed=0):
    """Makes every weight random, and positive, as a variance must be."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(np.abs(rng.normal(1.0, 0.5, weight.shape)))


def numbers(rng, *shape):
    return rng.normal(1, 2, shape).astype(np.float32)


NORMS = [
    ("BatchNormalization", {}),
    ("BatchNormalization", {"momentum": 0.8, "epsilon": 0.1, "scale": False}),
    ("BatchNormalization", {"center": False}),
    ("LayerNormalization", {}),
    ("LayerNormalization", {"axis": (2, 3), "epsilon": 0.1, "center": False}),
    ("GroupNormalization", {"groups": 2}),
    ("GroupNormalization", {"groups": -1, "scale": False}),
    ("RMSNormalization", {}),
    ("RMSNormalization", {"axis": (2, 3), "epsilon": 0.1}),
]
FUNCTIONS = {
    "BatchNormalization": interop.batch_normalization,
    "LayerNormalization": interop.layer_normalization,
    "GroupNormalization": interop.group_normalization,
    "RMSNormalization": interop.rms_normalization,
}


@pytest.mark.parametrize(("name", "arguments"), NORMS)
def test_norms(name, arguments, rng):
    layer, x = getattr(keras.layers, name)(**arguments), numbers(rng, STEPS + 1, 5, 3, 2, C)
    layer.build(x.shape[1:])
    randomize(layer)
    weights = {weight.name: np.asarray(weight) for weight in layer.weights}
    norm = FUNCTIONS[name](weights, **arguments)
    ours = getattr(jn, norm.module)(**norm.options)
    np.testing.assert_equal(interop.to_weights(norm), weights)
    if name != "BatchNormalization":
        small = x[0] * 1e-2  # so that epsilon matters
        close(ours.apply(norm.variables, small), layer(small))
        return

    close(ours.apply(norm.variables, x[0], train=False), layer(x[0], training=False))
    variables = norm.variables
    for batch in x[:STEPS]:
        y, updates = ours.apply(variables, batch, train=True, mutable=["batch_stats"])
        variables = variables | updates
        close(y, layer(batch, training=True))
    close(variables["batch_stats"]["mean"], layer.moving_mean)
    close(variables["batch_stats"]["var"], layer.moving_variance)


def theirs():
    """A keras model with all kinds of layers."""
    make = keras.layers
    layers = [
        make.Conv2D(4, 3, name="stem"),
        make.BatchNormalization(name="stem_norm"),
        make.DepthwiseConv2D((3, 2), depth_multiplier=2),
        make.GroupNormalization(2),
        make.Conv2D(6, 2, groups=2, use_bias=False),
        make.LayerNormalization(),
        make.SeparableConv2D(4, 2),
        make.Conv2DTranspose(5, (3, 2), strides=2, padding="same"),
        make.RMSNormalization(),
        make.Flatten(),
        make.Dense(3),
    ]
    x = start = keras.Input((9, 8, 3))
    for layer in layers:
        x = layer(x)
    return keras.Model(start, x)


class Ours(nn.Module):
    """The same model in Linen."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), padding="VALID", name="stem")(x)
        x = jn.BatchNorm(train=train, momentum=0.99, epsilon=1e-3, name="stem_norm")(x)
        x = nn.Conv(8, (3, 2), padding="VALID", feature_group_count=4)(x)
        x = jn.GroupNorm(2, epsilon=1e-3)(x)
        conv = nn.Conv(6, (2, 2), padding="VALID", feature_group_count=2, use_bias=False)
        x = jn.LayerNorm(epsilon=1e-3)(conv(x))
        x = nn.Conv(6, (2, 2), padding="VALID", feature_group_count=6, use_bias=False)(x)
        x = nn.Conv(4, (1, 1))(x)
        x = nn.ConvTranspose(5, (3, 2), (2, 2), padding="SAME", transpose_kernel=True)(x)
        x = jn.RMSNorm(epsilon=1e-6)(x)
        return nn.Dense(3)(x.reshape(len(x), -1))


NAMES = {
    "depthwise_conv2d*": "Conv_0",
    "group_normalization*": "GroupNorm_0",
    "conv2d_transpose*": "ConvTranspose_0",
    "conv2d*": "Conv_1",
    "layer_normalization*": "LayerNorm_0",
    "separable_conv2d*/depthwise": "Conv_2",
    "separable_conv2d*/pointwise": "Conv_3",
    "rms_normalization*": "RMSNorm_0",
    "dense*": "Dense_0",
}
# In a file of Keras 3, layers are named after their classes.
FILED = {"conv2d": "stem", "batch_normalization": "stem_norm", **NAMES}


# Compiled as a whole, because running operation by operation takes longer.
APPLY = jax.jit(Ours().apply, static_argnames=("train", "mutable"))


def datasets(path):
    """All arrays of an HDF5 file, by path."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    found = {}
    with h5py.File(path) as file:
        file.visititems(found.__setitem__)
        return {name: each[()] for name, each in found.items() if hasattr(each, "dtype")}


@pytest.mark.parametrize("listing", ["names", "weights.h5", "h5", "trained"])
def test_a_model(listing, rng, tmp_path):
    keras.backend.clear_session()
    model, x = theirs(), numbers(rng, STEPS, 5, 9, 8, 3)
    randomize(model)
    weights, names = listed(model), NAMES
    if listing == "trained":
        model.compile("sgd", "mse")
        model.fit(x[0], numbers(rng, 5, 3), epochs=2, verbose=0)
        weights = listed(model)
    if listing == "weights.h5":
        model.save_weights(tmp_path / "file.weights.h5")
        weights, names = datasets(tmp_path / "file.weights.h5"), FILED
    if listing == "h5":
        model.save(tmp_path / "file.h5")
        weights = datasets(tmp_path / "file.h5")
    template = jax.eval_shape(lambda: Ours().init(jax.random.key(0), x[0], train=False))
    variables, report = interop.from_keras(weights, template, names)
    assert len(report.entries) == len(weights)
    close(
        APPLY(variables, x[0], train=False),
        model(x[0]),
    )
    np.testing.assert_equal(interop.to_keras(variables, weights, names).arrays, weights)

    for batch in x:
        _, updates = APPLY(variables, batch, train=True, mutable="batch_stats")
        variables = variables | updates
        model(batch, training=True)
    back = interop.to_keras(variables, listed(model), NAMES).arrays
    for name, array in listed(model).items():
        close(back[name], array)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_transposed_convolutions(padding, size, rng):
    """Keras's paddings are the same as Flax's paddings of the same name."""
    layer = keras.layers.Conv1DTranspose(4, size, strides=2, padding=padding)
    x = numbers(rng, 2, 5, 4)
    y = layer(x)
    weights = {f"up/{weight.name}": np.asarray(weight) for weight in layer.weights}
    for transpose_kernel in (False, True):
        options = {"transpose_kernel": transpose_kernel}
        ours = nn.ConvTranspose(4, (size,), (2,), padding.upper(), **options)
        template = {"up": jax.eval_shape(ours.init, jax.random.key(0), x)["params"]}
        rules = {"up": interop.transposed(**options)}
        variables, _ = interop.from_keras(weights, template, rules=rules)
        close(jax.jit(ours.apply)({"params": variables["up"]}, x), y)
        back = interop.to_keras(variables, weights, rules=rules).arrays
        np.testing.assert_equal(back, weights)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_paddings_with_a_stride(size, rng):
    layer = keras.layers.Conv1D(4, size, strides=2, padding="same")
    x = numbers(rng, 2, 6, 4)
    y = layer(x)
    ours = nn.Conv(4, (size,), 2, "SAME")
    weights = {weight.name: np.asarray(weight) for weight in layer.weights}
    template = jax.eval_shape(ours.init, jax.random.key(0), x)
    variables, _ = interop.from_keras(weights, template)
    close(jax.jit(ours.apply)(variables, x), y)


def test_jaxnorms_default_is_keras_average():
    norm = interop.batch_normalization(
        {"moving_mean": np.zeros(1, np.float32), "moving_variance": np.ones(1, np.float32)}
    )
    assert norm.options["estimator"] == jaxnorm.ema(0.99)
