"""Norms and models of keras, from every kind of listing, made with NumPy."""

import jax
import numpy as np
import pytest

import jaxnorm
import jaxnorm.linen as jn
from jaxnorm.interop.keras import (
    batch_normalization,
    from_keras,
    group_normalization,
    layer_normalization,
    rms_normalization,
    to_keras,
    to_weights,
    transposed,
)

GAMMA, BETA, MEAN, VAR = np.float32([[1, 2], [3, 4], [5, 6], [7, 8]])
X = np.float32(np.random.default_rng(0).normal(1, 2, (3, 5, 2)))
NAMED = {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VAR}
LISTINGS = {
    "names": "bn/{name}",
    "a Sequential": "sequential/bn/{name}",
    "h5": "bn/bn/{name}:0",
    "h5 of a Sequential": "bn/sequential/bn/{name}:0",
    "model_weights": "model_weights/bn/model/bn/{name}",
    "weights.h5": "layers/bn/vars/{place}",
    "attributes": "bn/vars/{place}",
}


def listed(listing, weights):
    """The weights of a layer as keras lists them."""
    return {
        listing.format(name=name, place=place): weight
        for place, (name, weight) in enumerate(weights.items())
    }


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(each, np.float32) for name, each in leaves.items()}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_listings(listing):
    weights = listed(listing, NAMED)
    layer = "sequential/bn" if listing.startswith("seq") else "bn"
    norm = batch_normalization(weights, layer)
    np.testing.assert_equal(to_weights(norm), NAMED)
    assert norm.options["estimator"] == jaxnorm.ema(0.99)

    template = {
        "params": {"Norm": shapes(scale=(2,), bias=(2,))},
        "batch_stats": {"Norm": shapes(mean=(2,), var=(2,))},
    }
    variables, _ = from_keras(weights, template, {layer: "Norm"})
    np.testing.assert_equal(variables["batch_stats"]["Norm"]["var"], VAR)
    np.testing.assert_equal(variables["params"]["Norm"]["bias"], BETA)
    back, _ = to_keras(variables, weights, {layer: "Norm"})
    np.testing.assert_equal(back, weights)


def test_positions_without_a_scale():
    weights = {f"layers/bn/vars/{i}": each for i, each in enumerate((BETA, MEAN, VAR))}
    norm = batch_normalization(weights, "bn", scale=False)
    np.testing.assert_equal(to_weights(norm)["moving_variance"], VAR)
    with pytest.raises(ValueError, match="3 weights by position, but 4 are expected"):
        batch_normalization(weights, "bn")
    template = {"bn": shapes(bias=(2,), mean=(2,), var=(2,))}
    variables, _ = from_keras(weights, template)
    np.testing.assert_equal(variables["bn"]["bias"], BETA)


def test_norms():
    """Compares with oracles, with keras's defaults."""
    norm = batch_normalization(NAMED)
    y = jn.BatchNorm(**norm.options).apply(norm.variables, X, train=False)
    wanted = GAMMA * (X - MEAN) / np.sqrt(VAR + 1e-3) + BETA
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    affine = {"gamma": GAMMA, "beta": BETA}
    both = {"use_scale": True, "use_bias": True, "epsilon": 1e-3}
    axes = {"reduction_axes": -1, "feature_axes": -1}
    assert layer_normalization(affine).options == both | axes
    norm = group_normalization(affine, groups=-1)
    assert (norm.module, norm.options) == ("InstanceNorm", both)
    norm = group_normalization(affine)
    assert (norm.module, norm.options) == ("GroupNorm", both | {"num_groups": 32})
    norm = rms_normalization({"scale": np.ones((5, 2), np.float32)}, axis=(1, 2))
    y = jn.RMSNorm(**norm.options).apply(norm.variables, X)
    wanted = X / np.sqrt(np.square(X).mean((1, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(y, wanted, rtol=1e-5)


def test_kernels():
    weights = {
        "conv/kernel": np.float32(np.arange(24).reshape(2, 3, 1, 4)),
        "depthwise/kernel": np.float32(np.arange(24).reshape(1, 2, 4, 3)),
        "separable/depthwise_kernel": np.float32(np.arange(4).reshape(2, 2, 1)),
        "separable/pointwise_kernel": np.float32(np.arange(6).reshape(1, 2, 3)),
        "separable/bias": np.float32([7, 8, 9]),
        "up/kernel": np.float32(np.arange(12).reshape(3, 2, 2)),
        "ConvTranspose_0/kernel": np.float32(np.arange(18).reshape(3, 3, 2)),
        "words/embeddings": np.float32([[1, 2]]),
        "optimizer/vars/0": np.float32([1]),
        "dropout/seed_generator/seed_generator_state": np.uint32([1, 2]),
    }
    template = {
        "conv": shapes(kernel=(2, 3, 1, 4)),
        "depthwise": shapes(kernel=(1, 2, 1, 12)),
        "separable": {
            "depthwise": shapes(kernel=(2, 1, 2)),
            "pointwise": shapes(kernel=(1, 2, 3), bias=(3,)),
        },
        "up": shapes(kernel=(3, 2, 2)),
        "ConvTranspose_0": shapes(kernel=(3, 2, 3)),
        "words": shapes(embedding=(1, 2)),
    }
    rules = {"up": transposed()}
    variables, report = from_keras(weights, template, rules=rules)
    np.testing.assert_equal(variables["conv"]["kernel"], weights["conv/kernel"])
    # Output feature in·multiplier + m belongs to channel in.
    kernel, theirs = variables["depthwise"]["kernel"], weights["depthwise/kernel"]
    assert all(
        kernel[0, w, 0, i * 3 + m] == theirs[0, w, i, m]
        for _, w, i, m in np.ndindex(theirs.shape)
    )
    for name in ("up", "ConvTranspose_0"):
        theirs = weights[f"{name}/kernel"]
        expected = np.swapaxes(theirs, 1, 2)[::-1]
        np.testing.assert_equal(np.asarray(variables[name]["kernel"]), expected)
    assert "optimizer/vars/0 → —: left out, optimizer state" in str(report)
    assert "seed_generator_state → —: left out, random seed" in str(report)
    np.testing.assert_equal(to_keras(variables, weights, rules=rules).arrays, weights)

    del rules["up"]
    template["ConvTranspose_1"] = template.pop("up")
    with pytest.raises(ValueError, match=r"pass transposed\(\) or"):
        from_keras(weights, template, {"up": "ConvTranspose_1"})


def test_what_does_not_fit_is_refused():
    renorm = {f"layers/bn/vars/{i}": GAMMA for i in range(7)}
    with pytest.raises(ValueError, match="7 weights by position, but 4"):
        batch_normalization(renorm, "bn")
    with pytest.raises(ValueError, match="left over: renorm_mean"):
        batch_normalization(NAMED | {"renorm_mean": MEAN})
    with pytest.raises(ValueError, match="moving_mean and moving_variance of the norm"):
        batch_normalization({"gamma": GAMMA})
    with pytest.raises(ValueError, match="there is no layer 'b'; choose one of bn"):
        batch_normalization({"bn/gamma": GAMMA}, "b")
    template = {"bn": shapes(bias=(2,), mean=(2,), var=(2,))}
    with pytest.raises(ValueError, match=r"bn/vars/3 \(2,\): bn has bias, mean, var"):
        from_keras(listed("bn/vars/{place}", NAMED), template)


def test_positions_of_another_number_are_not_guessed():
    """Without a scale, the three weights by position would all be off by one."""
    weights = {f"layers/bn/vars/{i}": np.full(2, i + 1.0, np.float32) for i in range(3)}
    both = {"scale": np.zeros(2, np.float32), "bias": np.zeros(2, np.float32)}
    statistics = {"mean": np.zeros(2, np.float32), "var": np.zeros(2, np.float32)}
    template = {"params": {"bn": both}, "batch_stats": {"bn": statistics}}
    with pytest.raises(ValueError, match="left over"):
        from_keras(weights, template, keep=["batch_stats/**", "params/**"])
