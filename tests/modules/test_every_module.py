"""Every module of the table, in both APIs, in all common uses of modules."""

import copy
import functools
import inspect
import pickle
import warnings

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from tests.modules.apis import KEY, NNX, each_api
from tests.support.cases import EPSILON, NORMS, cases, rows

pytestmark = pytest.mark.usefixtures("lenient")
close = functools.partial(chex.assert_trees_all_close, rtol=2e-6, atol=2e-6)


def known_to(norm):
    """Returns the names of a class's arguments, including those it passes on."""
    makers = [
        norm,  # for Linen
        *(vars(each)["__init__"] for each in norm.__mro__ if "__init__" in vars(each)),
    ]
    return {name for each in makers for name in inspect.signature(each).parameters}


def arguments_of(norm, case=None):
    """Returns the arguments of a class, for a case or for features on the last axis."""
    known = known_to(norm)
    given = {"epsilon": EPSILON, **ROWS[norm.__name__].arguments}
    if case is None:
        return given
    given["feature_axes" if "feature_axes" in known else "axis"] = case.axis
    if "reduction_axes" in known and (
        case.layout.reduced is not None or norm.__name__ in ("LayerNorm", "RMSNorm")
    ):
        given["reduction_axes"] = case.norm.over(case.layout)
    return given


def name_of(path):
    """Returns the name of a variable, which NNX puts into a box."""
    return [key.key for key in path if isinstance(getattr(key, "key", None), str)][-1]


def model_of(api, case, **others):
    """Returns a module for a case, and its variables filled with the case's arrays."""
    norm = getattr(api.ours, case.norm.module)
    x, scale, bias, _ = case.arrays()
    if case.layout.conditional:
        others |= {"use_scale": False, "use_bias": False}
    others = {each: value for each, value in others.items() if each in known_to(norm)}
    number = int(np.prod(case.layout.feature_shape))
    model = api.model(norm, x, number, **arguments_of(norm, case), **others)
    given = dict(zip(("mean", "var"), case.running(), strict=True))
    given |= case.norm.parameters
    if not case.layout.conditional:
        given |= {"scale": scale, "bias": bias}

    def filled(path, old):
        value = jnp.asarray(given.get(name_of(path), old), old.dtype)
        return jnp.full(old.shape, value) if value.ndim == 0 else value.reshape(old.shape)

    return model, jax.tree.map_with_path(filled, model.variables)


def call_of(case):
    """Returns the arguments of a call: those of the functions, as modules name them."""
    call = {"weights": case.weights(), **case.norm.mode}
    if case.layout.conditional:
        call |= dict(zip(("scale", "bias"), case.arrays()[1:3], strict=True))
    return call


def has_module(case):
    """Whether the norm's module can reduce the axes of the layout."""
    known = known_to(getattr(jn, case.norm.module))
    return case.layout.reduced is None or "reduction_axes" in known


ROWS = {row.module: row for row in reversed(NORMS)}  # for batch norm, the training row
LAST = cases(["float32"], ["float"], few=True)
CASES = [
    case for case in cases(["float32"], ["none", "float"], in_turn=True) if has_module(case)
]
# The other norms differ from these only in their axes.
FAST = [case for case in LAST if case.norm.name in ("batch_norm-train", "group_norm")]
CONDITIONAL = [case for case in CASES if case.layout.conditional]
# The norm with a state, and the norm that depends on the number of features.
each_row = pytest.mark.parametrize("norm", rows(ROWS, ["BatchNorm", "GroupNorm"]))


@each_api
@pytest.mark.parametrize("case", rows(CASES, FAST + CONDITIONAL[:1]), ids=str)
def test_gives_what_its_function_does(api, case):
    """The output, and the gradients with respect to x and the parameters."""
    model, variables = model_of(api, case)
    x, scale, bias, g = case.arrays()
    no_bias = case.norm.module == "RMSNorm" and not case.layout.conditional

    @jax.jit
    def of_module(params, x):
        given = variables | {"params": params}
        y, vjp = jax.vjp(
            lambda p, x: model.apply(given | {"params": p}, x, **call_of(case))[0],
            params,
            x,
        )
        return y, vjp(g)

    others = {name: jnp.asarray(each) for name, each in case.norm.parameters.items()}

    @jax.jit
    def of_function(x, scale, bias, others):
        def function(x, scale, bias, others):
            return case.apply(x, scale, bias, **others)

        y, vjp = jax.vjp(function, x, scale, None if no_bias else bias, others)
        return y, vjp(g)

    y, (dparams, dx) = of_module(variables["params"], x)
    expected, (expected_dx, *expected_dparams, dothers) = of_function(
        x, scale, bias, others
    )
    close(y, expected)
    close(dx, expected_dx)
    for name, total in dothers.items():
        value = jax.tree.leaves(dict(dparams)[name])[0]
        close(value.sum(), total, rtol=1e-5, atol=1e-5)
    if not case.layout.conditional:
        found = {name: dparams[name] for name in ("scale", "bias") if name in dict(dparams)}
        for name, each in zip(("scale", "bias"), expected_dparams, strict=True):
            if name in found:
                value = jax.tree.leaves(found[name])[0]
                close(value.reshape(each.shape), each, rtol=1e-5, atol=1e-5)


@each_api
@pytest.mark.parametrize("case", rows(LAST, FAST[:1]), ids=str)
def test_under_transformations(api, case):
    model, variables = model_of(api, case)
    x, _, _, g = case.arrays()
    call = call_of(case)
    dx = jnp.cos(x)

    def norm(x):
        return model.apply(variables, x, **call)[0]

    def loss(x):
        return jnp.vdot(g, jnp.sin(norm(x)))

    def twice(x):
        return jax.lax.scan(lambda x, _: (norm(x), None), x, length=2)[0]

    @jax.jit
    def ways(x):
        gradient = jax.grad(loss)(x)
        return {
            "mapped": (
                jax.vmap(norm)(jnp.stack([x, 2 * x])),
                jnp.stack([norm(x), norm(2 * x)]),
            ),
            "remat": (jax.grad(jax.checkpoint(loss))(x), gradient),
            "jvp": (jax.jvp(loss, (x,), (dx,))[1], jnp.vdot(gradient, dx)),
            "scan": (twice(x), norm(norm(x))),
        }

    close(jax.jit(norm)(x), norm(x))
    for one, other in ways(x).values():
        close(one, other, rtol=1e-4, atol=1e-4)


@each_api
@pytest.mark.parametrize("case", rows(LAST, FAST), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_of_the_output_and_of_parameters(api, case, dtype):
    """By default, the output dtype is the promoted dtype of x and the parameters."""
    x, call = case.arrays()[0].astype(dtype), {**case.norm.mode}
    number = int(np.prod(case.layout.feature_shape))
    norm = getattr(api.ours, case.norm.module)

    def output(**others):
        model = api.model(norm, x, number, **arguments_of(norm, case), **others)
        params = jax.tree.leaves(model.variables["params"])
        assert {each.dtype for each in params} == {
            jnp.dtype(others.get("param_dtype", "float32"))
        }
        return jax.eval_shape(lambda x: model.apply(model.variables, x, **call)[0], x).dtype

    assert output() == jnp.float32
    # As in flax, NNX also promotes it with the statistics, which are float32.
    wide = api is NNX and not case.norm.alone
    assert output(param_dtype=dtype) == jnp.dtype("float32" if wide else dtype)
    assert output(dtype="bfloat16") == jnp.bfloat16


def on_last_axis(norm, api):
    """Returns a module with its features on the last axis, and an x for it."""
    x = 1 + jax.random.normal(KEY, (4, 3, 2, 6))
    cls = getattr(api.ours, norm)
    return api.model(cls, x, 6, **arguments_of(cls)), x


@each_api
@each_row
def test_parameters_may_be_left_out(api, norm):
    cls = getattr(api.ours, norm)
    x = jnp.ones((4, 3, 2, 6))
    flags = {"use_scale": False, "use_bias": False}
    without = {name: flag for name, flag in flags.items() if name in known_to(cls)}
    model = api.model(cls, x, 6, **arguments_of(cls), **without)
    paths = jax.tree.leaves_with_path(model.variables["params"])
    names = {name_of(path) for path, _ in paths}
    assert not names & {"scale", "bias"}
    assert model(x, **ROWS[norm].mode).shape == x.shape


@each_api
@each_row
def test_variables_survive_pickling_copying_and_averaging(api, norm):
    model, x = on_last_axis(norm, api)
    mode = ROWS[norm].mode
    y = model(x, **mode)
    copies = {
        "pickle": pickle.loads(pickle.dumps(model.variables)),
        "deepcopy": copy.deepcopy(model.variables),
        "average": jax.tree.map(lambda each: (each + each) / 2, model.variables),
        "stack": jax.tree.map(lambda each: jnp.stack([each, each])[1], model.variables),
    }
    for variables in copies.values():
        np.testing.assert_array_equal(model.apply(variables, x, **mode)[0], y)


@pytest.mark.parametrize("norm", rows(ROWS, ["BatchNorm"]))
@each_api
def test_variables_survive_a_checkpoint(api, norm, tmp_path):
    model, _ = on_last_axis(norm, api)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "variables", model.variables)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "variables", model.variables)
    chex.assert_trees_all_equal(restored, model.variables)


@each_row
def test_linen_modules_are_values(norm):
    """They compare by their attributes, and can be pickled, cloned, tabulated and bound."""
    cls = getattr(jn, norm)
    module = cls(**arguments_of(cls))
    x = jnp.ones((4, 3, 2, 6))
    mode = ROWS[norm].mode
    assert module == module.clone() == pickle.loads(pickle.dumps(module))
    assert hash(module) == hash(module.clone())
    variables = module.init(KEY, x, **mode)
    shapes = jax.eval_shape(functools.partial(module.init, **mode), KEY, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, shapes)
    with warnings.catch_warnings():  # flax displays all arguments, arrays or not
        warnings.simplefilter("error")
        assert norm in module.tabulate(KEY, x, **mode, compute_flops=False)
    bound = module.bind(variables, mutable=["batch_stats"])
    assert bound(x, **mode).shape == x.shape


@each_row
def test_linen_modules_are_lifted(norm):
    """Under nn.remat, nn.scan and nn.vmap, each layer has its own parameters."""
    cls = getattr(jn, norm)
    mode = ROWS[norm].mode

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _=None):
            return cls(**arguments_of(cls), name="norm")(x, **mode), None

    axes = {"params": 0, "batch_stats": 0}
    layers = nn.scan(
        nn.remat(Block), variable_axes=axes, split_rngs={"params": True}, length=2
    )()
    x = 1 + jax.random.normal(KEY, (4, 3, 2, 6))
    variables = layers.init(KEY, x, None)
    (y, _), _ = layers.apply(variables, x, None, mutable=["batch_stats"])
    expected = x
    for layer in range(2):
        each = jax.tree.map(lambda leaf, layer=layer: leaf[layer], variables)
        (expected, _), _ = Block().apply(each, expected, mutable=["batch_stats"])
    close(y, expected, rtol=1e-5, atol=1e-5)


@each_row
def test_nnx_modules_are_split_merged_and_mapped(norm):
    cls = getattr(jx, norm)
    row = ROWS[norm]
    x = 1 + jax.random.normal(KEY, (4, 3, 2, 6))
    make = functools.partial(cls, 6, **arguments_of(cls))
    model = make(rngs=nnx.Rngs(0))
    mode = {**row.mode, **({"update": False} if row.mode else {})}
    y = model(x, **mode)
    graph, state = nnx.split(model)
    np.testing.assert_array_equal(nnx.merge(graph, state)(x, **mode), y)
    np.testing.assert_array_equal(copy.deepcopy(model)(x, **mode), y)
    restored = nnx.merge(graph, pickle.loads(pickle.dumps(state)))
    np.testing.assert_array_equal(restored(x, **mode), y)
    assert norm in nnx.tabulate(model, x, **mode)
    shapes = nnx.state(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, state)
    close(nnx.jit(lambda model, x: model(x, **mode))(model, x), y)

    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def several(rngs):
        return make(rngs=rngs)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    @nnx.remat
    def scanned(model, x):
        return model(x, **mode)

    close(scanned(several(nnx.Rngs(0)), x), model(y, **mode), rtol=1e-5, atol=1e-5)


@each_api
@each_row
def test_statistics_follow_training_only(api, norm):
    """A module has statistics exactly if its norm in the table has them."""
    model, x = on_last_axis(norm, api)
    row = ROWS[norm]
    before = model.variables["batch_stats"]
    _, after = model.apply(model.variables, x, **row.mode)
    assert bool(jax.tree.leaves(before)) == (not row.alone)
    if not row.alone:
        _, trained = model.apply(model.variables, x, train=True)
        assert any(
            (one != other).any()
            for one, other in zip(
                jax.tree.leaves(before), jax.tree.leaves(trained), strict=True
            )
        )
        _, evaluated = model.apply(model.variables, x, train=False)
        chex.assert_trees_all_equal(evaluated, before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
