"""The sources' networks, in Linen and NNX: rows 50, 55 and 64 of the claims."""

import functools
import itertools
from collections import Counter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from experiments import models
from experiments.models import nnx as nnx_models
from tests.support.cases import rows

pytestmark = pytest.mark.usefixtures("lenient")


class Case(NamedTuple):
    """A network in both frameworks, its input shape without batch, and known numbers."""

    linen: nn.Module
    nnx: Any  # (rngs) -> module
    shape: tuple[int, ...]
    output: tuple[int, ...]
    trainable: int
    statistics: int


CASES = {
    "fully connected": Case(
        models.FullyConnected(), nnx_models.FullyConnected, (1, 5), (1, 2), 802, 96
    ),
    "convolutional": Case(
        models.Convolutional(),
        nnx_models.Convolutional,
        (28, 28, 3),
        (12, 12, 2),
        10_338,
        128,
    ),
    "convolutional, flat": Case(
        models.Convolutional(flatten=True),
        functools.partial(nnx_models.Convolutional, flatten=True),
        (28, 28, 3),
        (2,),
        19_490,
        128,
    ),
    "seed": Case(
        models.SeedNetwork(), nnx_models.SeedNetwork, (784,), (10,), 1_541_020, 4520
    ),
    "seed, plain": Case(
        models.SeedNetwork(normalized=False),
        functools.partial(nnx_models.SeedNetwork, normalized=False),
        (784,),
        (10,),
        1_541_020 - 2260,  # a bias replaces β, and there is no γ
        0,
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


def shapes(model, x):
    """Returns the shapes of a Linen network's output and variables, computing nothing."""
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, train=False))


def count(tree):
    return sum(each.size for each in jax.tree.leaves(tree))


def test_rows_50_55_and_64_the_parameters_of_linen(case):
    """The source of row 55 lacks a comma and a Flatten; with both it has 19,618."""
    x = jnp.zeros((2, *case.shape))
    y, variables = shapes(case.linen, x)
    assert y.shape == (2, *case.output)
    assert count(variables["params"]) == case.trainable
    assert count(variables.get("batch_stats", {})) == case.statistics


def test_rows_50_55_and_64_the_parameters_of_nnx(case):
    model = nnx.eval_shape(lambda: case.nnx(rngs=nnx.Rngs(0)))
    assert count(nnx.state(model, nnx.Param)) == case.trainable
    assert count(nnx.state(model, nnx.BatchStat)) == case.statistics


def test_row_55_the_feature_maps_have_26_24_and_12_positions_a_side():
    sides = [28]

    def run():
        model, x = nnx_models.Convolutional(rngs=nnx.Rngs(0)), jnp.zeros((2, 28, 28, 3))
        for layer in model.layers:
            x = layer(x)
            sides.append(x.shape[1])
        return x

    nnx.eval_shape(run)
    assert [side for side, _ in itertools.groupby(sides)] == [28, 26, 24, 12]


@pytest.mark.parametrize(
    ("model", "kernel"),
    [(nnx_models.FullyConnected, nnx.Linear), (nnx_models.Convolutional, nnx.Conv)],
)
def test_rows_50_and_55_normalise_after_relu_with_the_defaults_of_keras(model, kernel):
    """The programs normalise after relu; the article around them says before."""
    first, relu, norm, second, _, _, *rest = nnx.eval_shape(
        lambda: model(rngs=nnx.Rngs(0))
    ).layers
    assert relu is nnx.relu
    assert isinstance(norm, jx.BatchNorm)
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)
    assert isinstance(first, kernel)
    assert isinstance(second, kernel)
    assert isinstance(rest[-1], nnx.Linear)


def layers_of(model):
    """Returns the layers of an NNX network that have variables, by their Linen names."""
    if isinstance(model, nnx_models.SeedNetwork):
        layers = itertools.chain(*zip(model.dense, model.after, strict=True))
    else:
        layers = [each for each in model.layers if isinstance(each, nnx.Module)]
    names = {
        nnx.Linear: "Dense",
        nnx.Conv: "Conv",
        jx.BatchNorm: "BatchNorm",
        nnx_models.ScaledDense: "ScaledDense",
        nnx_models.Shift: "bias",
    }
    counts = Counter()
    for layer in layers:
        name = names[type(layer)]
        yield f"{name}_{counts[name]}", layer
        counts[name] += 1


def give(model, variables):
    """Copies the values of Linen's variables to NNX."""
    for name, layer in layers_of(model):
        values = variables["params"][name]
        if isinstance(layer, nnx_models.Shift):
            values = {"bias": values}
        nnx.update(layer, nnx.State(values | variables["batch_stats"].get(name, {})))


def filled(variables, rng):
    """Returns values of these shapes that all differ from their initial values."""

    def fill(draw, tree):
        return jax.tree.map(lambda each: np.float32(draw(size=each.shape)), tree)

    return {
        "params": fill(rng.normal, variables["params"]),
        "batch_stats": fill(
            functools.partial(rng.uniform, 0.5, 2), variables.get("batch_stats", {})
        ),
    }


# Only two layers of the seed network, because each takes seconds to compile.
SHORT = {
    "seed": CASES["seed"]._replace(
        linen=models.SeedNetwork((7, 10)),
        nnx=functools.partial(nnx_models.SeedNetwork, 784, (7, 10)),
    ),
    "seed, plain": CASES["seed, plain"]._replace(
        linen=models.SeedNetwork((7, 10), normalized=False),
        nnx=functools.partial(nnx_models.SeedNetwork, 784, (7, 10), normalized=False),
    ),
}


@pytest.mark.parametrize(
    "name",
    rows(
        [each for each in CASES if each != "convolutional"],
        ["fully connected", "seed"],
    ),
)
def test_linen_and_nnx_compute_the_same_when_given_the_same(name, rng):
    case = SHORT.get(name, CASES[name])
    x = jnp.asarray(rng.normal(1, 2, (6, *case.shape)), jnp.float32)
    variables = filled(shapes(case.linen, x)[1], rng)
    model = case.nnx(rngs=nnx.Rngs(1))
    give(model, variables)
    run = nnx.jit(lambda model, x: model(x))
    apply = jax.jit(case.linen.apply, static_argnames=("train", "mutable"))

    model.train()
    trained, updates = apply(variables, x, train=True, mutable=("batch_stats",))
    np.testing.assert_allclose(run(model, x), trained, rtol=1e-4, atol=1e-5)

    model.eval()
    evaluated = apply(variables | updates, x, train=False)
    np.testing.assert_allclose(run(model, x), evaluated, rtol=1e-4, atol=1e-5)
    assert bool((trained != evaluated).any()) == bool(case.statistics)


def keras_network(name, keras):
    """The source's program, with the missing comma, and the softmax left to the loss."""
    layers = keras.layers
    if name == "fully connected":
        return keras.Sequential(
            [
                keras.Input((1, 5)),
                layers.Dense(16, activation="relu"),
                layers.BatchNormalization(),
                layers.Dense(32, activation="relu"),
                layers.BatchNormalization(),
                layers.Dense(2),
            ]
        )
    return keras.Sequential(
        [
            keras.Input((28, 28, 3)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            *([layers.Flatten()] if name.endswith("flat") else []),
            layers.Dense(2),
        ]
    )


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize(
    "name", ["fully connected", "convolutional", "convolutional, flat"]
)
def test_rows_50_and_55_keras_has_the_same_parameters_and_function(name, rng, need):
    need("keras")
    import keras

    case, network = CASES[name], keras_network(name, keras)
    assert network.count_params() == case.trainable + case.statistics
    x = rng.normal(size=(3, *case.shape)).astype(np.float32)
    model = case.nnx(rngs=nnx.Rngs(0))
    give(model, filled(shapes(case.linen, x)[1], rng))
    with_weights = (each for each in network.layers if each.weights)
    for theirs, (_, ours) in zip(with_weights, layers_of(model), strict=True):
        normalizes = isinstance(ours, jx.BatchNorm)
        names = ("scale", "bias", "mean", "var") if normalizes else ("kernel", "bias")
        theirs.set_weights([getattr(ours, name)[...] for name in names])
    model.eval()
    np.testing.assert_allclose(network(x, training=False), model(x), rtol=1e-4, atol=1e-4)


def test_both_start_at_v_of_deviation_1_and_a_bias_of_0():
    model = nnx_models.SeedNetwork(500, (40, 3), normalized=False, rngs=nnx.Rngs(0))
    assert float(model.dense[0].v[...].std()) == pytest.approx(1, abs=0.02)
    assert not model.after[0].bias[...].any()
