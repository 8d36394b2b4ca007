"""Folding a model: norms are folded into the right layers, and nothing else changes."""

import copy
import functools
import pickle

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors, nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.model.folding.pairing import Fold
from tests.modules.filled import filled, variables_of

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))


class Linen(nn.Module):
    """A residual network whose norms can be folded into various layers."""

    dtype: object = None

    @nn.compact
    def __call__(self, x, train):
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = conv(8, use_bias=False, name="stem")(x)
        x = nn.relu(jn.BatchNorm(train=train, name="behind_stem")(x))
        y = conv(8, feature_group_count=8, strides=2, name="depthwise")(x)
        y = nn.BatchNorm(use_running_average=not train, name="behind_depthwise")(y)
        x = nn.relu(y + conv(8, kernel_size=(1, 1), strides=2, name="shortcut")(x))
        x = jn.BatchNorm(train=train, name="before_valid")(x)
        x = conv(6, padding="VALID", name="valid")(x)
        x = jn.BatchNorm(train=train, axis=-1, name="behind_valid")(x)
        x = nn.ConvTranspose(5, (3, 3), strides=(2, 2), name="transposed")(x)
        x = jn.BatchRenorm(train=train, use_scale=False, name="behind_transposed")(x)
        x = nn.tanh(x).mean((1, 2))
        x = jn.BatchNorm(train=train, name="before_dense", momentum=0.5)(x)
        return nn.Dense(4, dtype=self.dtype, name="dense")(x)


FOLDS = (
    Fold("behind_stem", "stem", into_output=True),
    Fold("behind_depthwise", "depthwise", into_output=True),
    Fold("before_valid", "valid", into_output=False),
    Fold("behind_valid", "valid", into_output=True),
    Fold("behind_transposed", "transposed", into_output=True),
    Fold("before_dense", "dense", into_output=False),
)


class NNX(nnx.Module):
    """The same network in NNX."""

    def __init__(self, rngs, dtype=None):
        conv = functools.partial(nnx.Conv, kernel_size=(3, 3), dtype=dtype, rngs=rngs)
        self.stem = conv(3, 8, use_bias=False)
        self.behind_stem = jx.BatchNorm(8, rngs=rngs)
        self.depthwise = conv(8, 8, feature_group_count=8, strides=2)
        self.behind_depthwise = nnx.BatchNorm(8, rngs=rngs)
        self.shortcut = conv(8, 8, kernel_size=(1, 1), strides=2)
        self.before_valid = jx.BatchNorm(8, rngs=rngs, estimator=jaxnorm.population())
        self.valid = conv(8, 6, padding="VALID")
        self.behind_valid = jx.BatchNorm(6, rngs=rngs)
        self.transposed = nnx.ConvTranspose(6, 5, (3, 3), strides=(2, 2), rngs=rngs)
        self.behind_transposed = jx.BatchRenorm(5, use_scale=False, rngs=rngs)
        self.before_dense = jx.BatchNorm(5, rngs=rngs, momentum=0.5)
        self.dense = nnx.Linear(5, 4, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.behind_stem(self.stem(x)))
        y = self.behind_depthwise(self.depthwise(x))
        x = nnx.relu(y + self.shortcut(x))
        x = self.behind_valid(self.valid(self.before_valid(x)))
        x = nnx.tanh(self.behind_transposed(self.transposed(x)))
        return self.dense(self.before_dense(x.mean((1, 2))))


@pytest.fixture(scope="module")
def linen():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return variables_of(Linen(), jax.random.key(0), X, train=False)


@pytest.fixture(scope="module")
def trained():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = nnx.eval_shape(lambda: NNX(nnx.Rngs(0)))
        nnx.update(model, filled(nnx.state(model)))
        model.eval()
        return model


def close(y, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * scale)


def statistics_in(compiled):
    """Counts the roots in a compiled program; each norm with running statistics has one."""
    return compiled.as_text().count("rsqrt")


@pytest.mark.usefixtures("lenient")
class TestLinen:
    def test_every_norm_that_can_be_is_folded(self, linen):
        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        model, variables, report = jn.fold(Linen(), linen, shape, train=False)
        assert report.norms == FOLDS
        assert set(variables) == {"params"}
        assert not {each.norm for each in FOLDS} & set(variables["params"])
        before = jax.jit(functools.partial(Linen().apply, train=False))
        after = jax.jit(functools.partial(model.apply, train=False))
        close(after(variables, X), before(linen, X))
        assert statistics_in(before.lower(linen, X).compile()) > 0
        assert statistics_in(after.lower(variables, X).compile()) == 0

    def test_what_is_given_stays(self, linen):
        copy = jax.tree.map(jnp.copy, linen)
        jn.fold(Linen(), linen, X, train=False)
        assert jax.tree.structure(copy) == jax.tree.structure(linen)
        jax.tree.map(np.testing.assert_array_equal, copy, linen)

    def test_it_cannot_train_any_more(self, linen):
        model, variables, _ = jn.fold(Linen(), linen, X, train=False)
        with pytest.raises(ValueError, match=r"cannot (train|be trained)"):
            model.apply(variables, X, train=True, mutable=["batch_stats"])

    def test_norms_that_train_are_kept(self, linen):
        mutable = ["batch_stats"]
        report = jn.fold(Linen(), linen, X, train=True, mutable=mutable).report
        assert not report.folded
        assert all("normalises with the batch" in each.reason for each in report.kept)

    @pytest.mark.slow
    def test_in_bfloat16_the_error_is_that_of_the_dtype(self, linen):
        model, variables, report = jn.fold(Linen(jnp.bfloat16), linen, X, train=False)
        assert report.folded == tuple(each for each in FOLDS if each.into_output)
        exact, before, after = (
            np.asarray(each, np.float32)
            for each in (
                Linen().apply(linen, X, train=False),
                Linen(jnp.bfloat16).apply(linen, X, train=False),
                model.apply(variables, X, train=False),
            )
        )
        scale = np.abs(exact).max()
        assert np.abs(after - exact).max() < 0.03 * scale
        assert np.abs(before - exact).max() < 0.03 * scale

    def test_it_is_applied_as_it_was_folded_and_not_otherwise(self, linen):
        model, variables, _ = jn.fold(Linen(), linen, X, train=False)
        assert hash(model) == hash(model)
        jax.eval_shape(lambda: model.apply(variables, X[:1], False))
        with pytest.raises(ValueError, match="differs in train=True"):
            model.apply(variables, X, train=True)
        with pytest.raises(ValueError, match="differs in mutable"):
            model.apply(variables, X, train=False, mutable=["intermediates"])

    def test_another_method_is_folded_by_its_name(self):
        class Encoder(nn.Module):
            def setup(self):
                self.dense, self.norm = nn.Dense(2), jn.BatchNorm(train=False)

            def encode(self, x):
                return self.norm(self.dense(x))

            def __call__(self, x):
                return nn.relu(self.encode(x))

        x = X[0, 0]
        variables = variables_of(Encoder(), jax.random.key(0), x)
        expected = Encoder().apply(variables, x, method="encode")
        for method in ("encode", Encoder.encode, Encoder().encode):
            model, arrays, _ = jn.fold(Encoder(), variables, x, method=method)
            close(model.apply(arrays, x, method=method), expected)
        with pytest.raises(ValueError, match="for another call"):
            model.apply(arrays, x)

    def test_boxes_of_parameters_stay(self):
        boxed = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        model = nn.Sequential([nn.Dense(2, kernel_init=boxed), jn.BatchNorm(train=False)])
        variables = model.init(jax.random.key(0), X[0, 0])
        kernel = jn.fold(model, variables, X[0, 0]).variables["params"]["layers_0"][
            "kernel"
        ]
        assert kernel.names == (None, "model")


@pytest.mark.usefixtures("lenient")
class TestNNX:
    def test_every_norm_that_can_be_is_folded(self, trained):
        model, report = jx.fold(trained, jax.ShapeDtypeStruct(X.shape, X.dtype))
        assert report.norms == FOLDS
        close(model(X), trained(X))
        assert not jax.tree.leaves(nnx.state(model, nnx.BatchStat))
        graph, state = nnx.split(model)
        after = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        assert statistics_in(after.lower(state, X).compile()) == 0

    def test_what_is_given_stays(self, trained):
        copy = nnx.clone(trained)
        jx.fold(trained, X)
        assert nnx.graphdef(copy) == nnx.graphdef(trained)
        before, after = nnx.state(copy), nnx.state(trained)
        jax.tree.map(np.testing.assert_array_equal, before, after)
        assert trained.stem.bias is None

    def test_it_cannot_train_any_more(self, trained):
        model, _ = jx.fold(trained, X)
        model.train()
        with pytest.raises(ValueError, match="behind_stem is folded"):
            model(X)
        model.eval()
        close(model(X), trained(X))

    def test_what_the_layer_cannot_do_is_refused(self):
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), jx.BatchNorm(4, rngs=rngs))
        model.eval()
        folded, _ = jx.fold(model, jnp.ones((2, 3)))
        for name in ("mask", "weights", "scale", "bias"):
            with pytest.raises(ValueError, match=r"layers/1 is folded .* takes no mask"):
                folded.layers[1](jnp.ones((2, 4)), **{name: jnp.ones((2, 1))})

    def test_norms_that_train_are_kept(self, trained):
        model = nnx.clone(trained)
        model.train()
        report = jx.fold(model, X).report
        assert not report.folded
        assert all("normalises with the batch" in each.reason for each in report.kept)


class Block(nn.Module):
    """A layer and a norm; the layer may be passed in."""

    dense: nn.Module | None = None

    @nn.compact
    def __call__(self, x):
        dense = self.dense or nn.Dense(4, use_bias=False, name="own")
        return nn.relu(jn.BatchNorm(train=False)(dense(x)))


Jitted = nn.jit(Block)


class Scoped(nn.Module):
    """A norm that shares a scope with the module that contains it."""

    def setup(self):
        self.dense, self.norm = nn.Dense(4), jn.BatchNorm(train=False, use_bias=False)
        nn.share_scope(self, self.norm)

    def __call__(self, x):
        return self.norm(self.dense(x))


class Attributed(nn.Module):
    model: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.model(jax.lax.stop_gradient(Block(name="first")(x)))


class Compiled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(Block)()(Jitted()(x))


SAFE = {
    "in a row": nn.Sequential([nn.Dense(4, use_bias=False), jn.BatchNorm(train=False)]),
    "rows in a row": nn.Sequential([nn.Sequential([Block(), nn.relu]), Block()]),
    "a layer given to a block": Block(nn.Dense(4, use_bias=False)),
    "a block given to another": Attributed(Block()),
    "a scope shared": Scoped(),
    "compiled by itself, and checkpointed": Compiled(),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("model", SAFE.values(), ids=SAFE.keys())
def test_however_a_model_is_put_together_it_stays_the_same(model):
    x = X[0, 0]
    variables = variables_of(model, jax.random.key(0), x)
    expected = model.apply(variables, x)
    # The second time, jax has cached the model and would not trace it again by itself.
    for _ in range(2):
        folded = jn.fold(model, variables, x)
        assert folded.report.folded
        assert not folded.report.kept
        close(folded.model.apply(folded.variables, x), expected)


@pytest.mark.usefixtures("lenient")
def test_a_norm_that_centres_for_a_layer_is_kept():
    """Folding would cost the layer the precision that centring provides."""
    model = nn.Sequential([jn.BatchNorm(train=False), nn.Dense(2)])
    variables = variables_of(model, jax.random.key(0), X)
    for mean, kept in ((99.0, False), (150.0, True)):
        statistics = {"mean": jnp.full(3, mean), "var": jnp.ones(3)}
        given = {**variables, "batch_stats": {"layers_0": statistics}}
        folded = jn.fold(model, given, X)
        assert bool(folded.report.kept) == kept
        assert not kept or "standard deviations" in folded.report.kept[0].reason
        close(folded.model.apply(folded.variables, mean + X), model.apply(given, mean + X))


class Kinds(nnx.Module):
    """A model that checks the types of its layers, and may record intermediates."""

    def __init__(self, rngs, writes=None):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), jx.BatchNorm(3, rngs=rngs)])
        self.seen = nnx.Intermediate(jnp.zeros((8, 3)))
        self.writes = writes

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nnx.Linear) and self.writes is None:
                x = nnx.relu(x)
            elif isinstance(layer, nnx.Linear) and self.writes == "sow":
                self.sow(nnx.Intermediate, "sown", x)
            elif isinstance(layer, nnx.Linear) and self.writes == "variable":
                self.seen[...] = x
            elif isinstance(layer, jx.BatchNorm):
                x = nnx.tanh(x)
        return x


@pytest.mark.usefixtures("lenient")
def test_models_of_nnx_that_go_by_kinds():
    x = X[0, 0]
    model = Kinds(nnx.Rngs(0))
    model.eval()
    (kept,) = jx.fold(model, x).report.kept
    assert "its input comes from max in relu" in kept.reason
    model.writes = "nothing"
    folded = jx.fold(model, x)
    assert not folded.report.kept
    close(folded.model(x), model(x))


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("writes", ["sow", "variable"])
def test_what_a_model_of_nnx_writes_down_is_an_output(writes):
    model = Kinds(nnx.Rngs(0), writes)
    model.eval()
    (kept,) = jx.fold(model, X[0, 0]).report.kept
    assert "the output of layers/0 also goes to the model's output" in kept.reason


@pytest.mark.usefixtures("lenient")
def test_hooks_of_a_variable_do_not_change_what_is_folded():
    rngs = nnx.Rngs(0)
    small = {"on_set_value": lambda variable, value: jnp.clip(value, -0.01, 0.01)}
    layer = nnx.Linear(3, 3, kernel_metadata=small, bias_metadata=small, rngs=rngs)
    model = nnx.Sequential(layer, jx.BatchNorm(3, rngs=rngs))
    model.eval()
    close(jx.fold(model, X[0, 0]).model(X[0, 0]), model(X[0, 0]))


@pytest.mark.usefixtures("lenient")
def test_modules_of_nnx_that_share_are_kept():
    rngs = nnx.Rngs(0)
    one, other = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
    other.kernel = one.kernel
    model = nnx.Sequential(
        one, jx.BatchNorm(3, rngs=rngs), nnx.relu, other, jx.BatchNorm(3, rngs=rngs)
    )
    model.eval()
    report = jx.fold(model, X).report
    assert [each.reason.split(";")[0] for each in report.kept] == [
        "layers/0 has variables that are also used elsewhere",
        "layers/3 has variables that are also used elsewhere",
    ]


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("fault", [jnp.nan, -1.0, jnp.inf])
def test_statistics_that_are_none_are_not_folded(fault):
    model = nn.Sequential([nn.Dense(2), jn.BatchNorm(train=False)])
    variables = model.init(jax.random.key(0), X)
    variables["batch_stats"]["layers_1"]["var"] = jnp.array([1.0, fault])
    report = jn.fold(model, variables, X).report
    assert "not finite in float32" in report.kept[0].reason


@pytest.mark.usefixtures("lenient")
def test_variables_that_are_missing_are_an_error():
    model = nn.Sequential([nn.Dense(2), nn.BatchNorm(use_running_average=True)])
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    with pytest.raises(ValueError, match="are shapes, but arrays"):
        jn.fold(model, shapes, X)
    with pytest.raises((ValueError, errors.ScopeCollectionNotFound), match="batch_stats"):
        jn.fold(model, {"params": filled(shapes["params"])}, X)


@pytest.mark.usefixtures("lenient")
def test_nothing_to_fold_is_an_error():
    with pytest.raises(ValueError, match="called no batch norm"):
        jn.fold(nn.Dense(2), nn.Dense(2).init(jax.random.key(0), X), X)
    with pytest.raises(ValueError, match="called no batch norm"):
        jx.fold(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), X)


def test_a_folded_model_is_initialised_tabulated_and_pickled():
    # The default initialiser of flax's layers cannot be pickled.
    dense = nn.Dense(4, use_bias=False, kernel_init=nn.initializers.ones)
    model = nn.Sequential([dense, jn.BatchNorm(train=False)])
    variables = model.init(KEY, jnp.ones((2, 3)))
    folded = jn.fold(model, variables, jnp.ones((2, 3)))
    again = folded.model.init(KEY, jnp.ones((2, 3)))
    chex.assert_trees_all_equal_shapes_and_dtypes(again, folded.variables)
    y, _ = folded.model.init_with_output(KEY, jnp.ones((2, 3)))
    chex.assert_trees_all_equal(y, folded.model.apply(again, jnp.ones((2, 3))))
    table = nn.tabulate(folded.model, KEY)(jnp.ones((2, 3)))
    assert "layers_0" in table
    assert "16" in table  # parameters: a kernel of 12 and a bias of 4
    copied = pickle.loads(pickle.dumps(folded))
    assert copied.model == folded.model
    chex.assert_trees_all_equal(
        copied.model.apply(copied.variables, jnp.ones((2, 3))),
        folded.model.apply(folded.variables, jnp.ones((2, 3))),
    )


def test_a_folded_nnx_model_is_tabulated_copied_and_pickled():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), jx.BatchNorm(4, rngs=rngs))
    model.eval()
    folded = jx.fold(model, jnp.ones((2, 3))).model
    y = folded(jnp.ones((2, 3)))
    for copied in (
        pickle.loads(pickle.dumps(folded)),
        copy.deepcopy(folded),
        nnx.clone(folded),
    ):
        chex.assert_trees_all_equal(copied(jnp.ones((2, 3))), y)
    assert "Linear" in nnx.tabulate(folded, jnp.ones((2, 3)))
    assert "Folded" in nnx.tabulate(folded, jnp.ones((2, 3)))
