"""Frozen batch norms neither train nor update, whatever the mode of their model."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.apis import each_api, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = 2 * normal(8, 3) + 1
KEY = jax.random.key(0)


class Block(nn.Module):
    norm: type

    @nn.compact
    def __call__(self, x, train):
        x = self.norm()(nn.Dense(3)(x), use_running_average=not train)
        return self.norm()(nn.Dense(3)(x), use_running_average=not train)


class Network(nn.Module):
    norm: type = jn.BatchNorm

    def setup(self):
        self.encoder, self.decoder = Block(self.norm), Block(self.norm)

    def __call__(self, x, train=True):
        return self.decoder(self.encoder(x, train), train)

    def encode(self, x, train=True):
        return self.encoder(x, train)


def trained(model):
    """Returns variables, and the statistics after a call in training."""
    variables = model.init(KEY, X, train=False)
    y, updates = model.apply(variables, X, train=True, mutable=["batch_stats"])
    return variables, y, updates["batch_stats"]


@each_api
def test_a_frozen_norm_evaluates(api):
    model = api.model(api.ours.BatchNorm, X, 3, frozen=True)
    thawed = api.model(api.ours.BatchNorm, X, 3)
    y, statistics = model.apply(model.variables, X, **training("BatchNorm"))
    chex.assert_trees_all_equal(y, thawed(X, use_running_average=True))
    chex.assert_trees_all_equal(statistics, model.variables["batch_stats"])
    by_call, same = thawed.apply(thawed.variables, X, frozen=True, **training("BatchNorm"))
    chex.assert_trees_all_equal((by_call, same), (y, statistics))


@pytest.mark.usefixtures("unchecked")
@each_api
def test_a_flag_that_is_no_bool_is_refused(api):
    model = api.model(api.ours.BatchNorm, X, 3)
    with pytest.raises(TypeError, match=r"frozen .call.='encoder'"):
        model(X, frozen="encoder")


@pytest.mark.parametrize("norm", [jn.BatchNorm, nn.BatchNorm])
@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["encoder/*"], {"encoder/BatchNorm_0", "encoder/BatchNorm_1"}),
        (["**/BatchNorm_1"], {"encoder/BatchNorm_1", "decoder/BatchNorm_1"}),
        (["encoder/BatchNorm_0", "d*/*_1"], {"encoder/BatchNorm_0", "decoder/BatchNorm_1"}),
        ([], {f"{a}coder/BatchNorm_{b}" for a in ("en", "de") for b in (0, 1)}),
    ],
)
def test_parts_of_a_linen_model_are_frozen(norm, patterns, frozen):
    model = Network(norm)
    variables, y, statistics = trained(jn.freeze(model, *patterns))
    chex.assert_trees_all_equal(variables, model.init(KEY, X, train=False))
    unchanged = {
        f"{block}/{name}"
        for block, norms in statistics.items()
        for name, each in norms.items()
        if not np.any(each["mean"])
    }
    assert unchanged == frozen
    if len(frozen) == 4:
        chex.assert_trees_all_equal(y, model.apply(variables, X, train=False))


def test_a_frozen_model_is_differentiated_and_compiled_like_a_model():
    model = jn.freeze(Network(), "encoder/*")
    variables, _, _ = trained(model)

    @jax.jit
    def step(params):
        def loss(params):
            y, updates = model.apply(
                variables | {"params": params}, X, mutable=["batch_stats"]
            )
            return jnp.sum(y**2), updates

        return jax.grad(loss, has_aux=True)(params)

    gradients, updates = step(variables["params"])
    assert np.any(gradients["encoder"]["BatchNorm_0"]["scale"])
    chex.assert_trees_all_equal(
        updates["batch_stats"]["encoder"], variables["batch_stats"]["encoder"]
    )
    assert model == jn.freeze(Network(), "encoder/*")
    assert hash(model) == hash(jn.freeze(Network(), "encoder/*"))


def test_another_method_of_a_frozen_model_may_call_a_part():
    model = jn.freeze(Network(), "decoder/*")
    variables = model.init(KEY, X)
    model.apply(variables, X, train=False, method="encode")


@pytest.mark.parametrize("pattern", ["encodr/*", "encoder", "BatchNorm_0"])
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    with pytest.raises(
        ValueError, match=rf"'{pattern.replace('*', '.*')}' matches no.*encoder/BatchNorm_"
    ):
        jn.freeze(Network(), pattern, "decoder/**").init(KEY, X)


@pytest.mark.usefixtures("unchecked")
def test_flags_of_flax_that_cannot_be_changed_are_refused():
    model = jn.freeze(nn.Sequential([nn.BatchNorm(use_running_average=False)]))
    with pytest.raises(ValueError, match=r"layers_0 is flax's.*leave the flag to the call"):
        model.init(KEY, X)
    fixed = nn.Sequential([nn.BatchNorm(use_running_average=True)])
    chex.assert_trees_all_equal(jn.freeze(fixed).init(KEY, X), fixed.init(KEY, X))
    with pytest.raises(TypeError, match="pattern 3 is not a string"):
        jn.freeze(Network(), 3)


def network(norm=jx.BatchNorm):
    rngs = nnx.Rngs(0)
    blocks = (nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), norm(3, rngs=rngs)) for _ in "ab")
    return nnx.Sequential(*blocks)


def test_freezing_outlives_the_mode_of_an_nnx_model():
    model = network()
    jx.freeze(model, "layers/0/**")
    model.eval()
    model.train()
    model(X)
    first, second = (each.layers[1] for each in model.layers)
    assert not np.any(first.mean[...])
    assert np.any(second.mean[...])
    jx.freeze(model, "layers/0/**", frozen=False)
    model(X)
    assert np.any(first.mean[...])


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_frozen_if_a_pattern_is_wrong():
    model = network()
    with pytest.raises(ValueError, match=r"'layer/\*' matches no.*layers/0/layers/1"):
        jx.freeze(model, "**", "layer/*")
    assert not any(block.layers[1].frozen for block in model.layers)
    with pytest.raises(ValueError, match=r"are flax's BatchNorm.*jaxnorm.nnx.BatchNorm"):
        jx.freeze(network(nnx.BatchNorm))
    with pytest.raises(TypeError, match="is not a string"):
        jx.freeze(model, None)


@pytest.mark.usefixtures("unchecked")
def test_helpers_ask_for_the_original_model():
    model = jn.freeze(Network(), "encoder/*")
    variables = model.init(KEY, X)
    for helper in (jn.calibrate, jn.fold, jn.diagnose):
        with pytest.raises(TypeError, match=r"is a Frozen.*its attribute `model`"):
            helper(model, variables, [X])
