"""Exported programs: any sizes and platform, saved and loaded, with their states."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm._core.layouts import number_along
from tests.modules.apis import each_api, most_different_norms, normal, training
from tests.support.cases import cases, rows
from tests.support.estimators import most_different_estimators

PLATFORMS = ("cpu", "cuda", "tpu")
FAST = [
    case
    for case in cases(("float32",), ("float",), few=True)
    if case.norm.name in ("batch_norm-train", "layer_norm")
]


def symbolic(shape, kept=()):
    """Returns the shape with a symbol for each size, except 1 and the axes in `kept`."""
    names = [
        str(n) if i in kept or n == 1 else f"n{i}"  # 1 broadcasts
        for i, n in enumerate(shape)
    ]
    return ", ".join(names)


def described(tree):
    return jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), tree)


def shapes_of(scope, *arrays, kept=()):
    """Returns symbolic shapes for the arrays; None stays None."""
    return [
        each
        if each is None
        else jax.ShapeDtypeStruct(
            export.symbolic_shape(symbolic(each.shape, kept), scope=scope), each.dtype
        )
        for each in arrays
    ]


def exported(function, *arguments, platforms=PLATFORMS):
    return export.export(jax.jit(function), platforms=platforms)(*arguments)


def reloaded(program):
    """Saves and loads a program; needs flatbuffers, which jax does not install."""
    pytest.importorskip("flatbuffers")
    return export.deserialize(program.serialize())


def assert_close(given, expected, tolerance=1e-5):
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(
            np.asarray(one, np.float64),
            np.asarray(two, np.float64),
            rtol=tolerance,
            atol=tolerance * max(1.0, np.abs(np.asarray(two, np.float64)).max()),
        ),
        given,
        expected,
    )


@pytest.fixture
def one_device(monkeypatch):
    """Selects the formulas for one device; the tests run with eight."""
    monkeypatch.setattr(
        "jaxnorm._core.variance.choice.has_several_devices", lambda platform: False
    )
    jax.clear_caches()
    yield
    jax.clear_caches()


def gradients(case):
    """Returns a function of arrays that gives y and all gradients."""

    def function(x, scale, bias, cotangent, weights):
        def y(x, scale, bias):
            return case.apply(x, scale, bias, weights=weights)

        output, backward = jax.vjp(y, x, scale, bias)
        return output, backward(cotangent)

    return function


def larger(case):
    """Returns the case with larger sizes, for which XLA sums in another order."""
    kept = case.features
    shape = tuple(n if i in kept else 7 * n + i for i, n in enumerate(case.shape))
    return dataclasses.replace(case, layout=dataclasses.replace(case.layout, shape=shape))


def arrays_of(case):
    return (*case.arrays(), case.weights())


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
    "case",
    rows(
        cases(("float32",), in_turn=True)
        + cases(("bfloat16", "float64"), ("float",), few=True),
        FAST,
    ),
    ids=str,
)
def test_sizes_may_be_symbolic(case):
    with jax.enable_x64(case.dtype == "float64"):
        x, scale, bias, cotangent, weights = arrays_of(case)
        scope = export.SymbolicScope()
        x, cotangent, weights = shapes_of(scope, x, cotangent, weights, kept=case.features)
        if case.layout.conditional:
            scale, bias = shapes_of(scope, scale, bias, kept=case.features)
        function = gradients(case)
        program = exported(function, x, *described((scale, bias)), cotangent, weights)
        for each in (case, larger(case)):
            arrays = arrays_of(each)
            tolerance = 1e-2 if case.dtype == "bfloat16" else 1e-5
            assert_close(program.call(*arrays), jax.jit(function)(*arrays), tolerance)


@pytest.mark.parametrize(
    "case",
    rows(cases(("float32",), few=True), cases(("float32",), ("none",), True)),
    ids=str,
)
def test_a_program_for_a_tpu_has_no_float64(case):
    x, scale, bias, cotangent, weights = arrays_of(case)
    scope = export.SymbolicScope()
    x, cotangent, weights = shapes_of(scope, x, cotangent, weights, kept=case.features)
    arguments = x, *described((scale, bias)), cotangent, weights
    program = exported(gradients(case), *arguments, platforms=("tpu",))
    assert "f64" not in program.mlir_module()


def in_training(estimator, **options):
    """Returns batch norm in training as a function of x and the statistics."""

    def function(x, statistics):
        return jaxnorm.batch_norm(x, statistics, train=True, estimator=estimator, **options)

    return function


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("samples", [1, 500, 5000])
def test_a_constant_varies_by_nothing_whatever_its_size(samples):
    average = jaxnorm.ema(0.0)
    statistics = average.init((3,))
    (x,) = shapes_of(export.SymbolicScope(), jnp.ones((2, 3)), kept=(1,))
    program = exported(in_training(average), x, described(statistics))
    y, found = program.call(jnp.full((samples, 3), 1000.1), statistics)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(found.mean, np.float32(1000.1))
    np.testing.assert_array_equal(found.var, 0)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(("samples", "in_float64"), [(10, True), (5000, False)])
def test_of_all_formulas_one_is_left_in_what_runs(samples, in_float64):
    statistics = jaxnorm.ema(0.9).init((3,))
    (x,) = shapes_of(export.SymbolicScope(), jnp.ones((2, 3)), kept=(1,))

    def derivative(x, statistics):
        y = in_training(jaxnorm.ema(0.9))
        return jax.grad(lambda x: jnp.sum(y(x, statistics)[0] ** 3))(x)

    program = exported(derivative, x, described(statistics))
    arguments = jnp.ones((samples, 3)), statistics
    compiled = jax.jit(program.call).lower(*arguments).compile().as_text()
    assert "conditional(" not in compiled
    assert (f"f64[{samples},3]" in compiled) == in_float64


@pytest.mark.usefixtures("one_device")
def test_a_batch_that_turns_out_to_be_empty_updates_nothing():
    average = jaxnorm.ema(0.9)
    statistics = average.init((3,))
    (x,) = shapes_of(export.SymbolicScope(), jnp.ones((2, 3)), kept=(1,))

    def without_first(x, statistics):
        return in_training(average)(x[1:], statistics)

    program = exported(without_first, x, described(statistics))
    y, found = program.call(jnp.ones((1, 3)), statistics)
    assert y.shape == (0, 3)
    assert_close(found, statistics)


@pytest.mark.usefixtures("unchecked")
def test_features_may_be_symbolic_where_they_are_in_no_groups():
    average = jaxnorm.ema(0.9)
    x = jnp.arange(20.0).reshape(5, 4)
    arguments = x, average.init((4,))
    scope = export.SymbolicScope()
    (batch,) = shapes_of(scope, x)
    (features,) = export.symbolic_shape("n1", scope=scope)
    statistics = jaxnorm.Statistics(*[jax.ShapeDtypeStruct((features,), x.dtype)] * 2)
    program = exported(in_training(average), batch, statistics)
    assert_close(program.call(*arguments), in_training(average)(*arguments))


def test_a_count_may_exceed_what_sizes_have_bits_for():
    (n,) = export.symbolic_shape("n")

    def count(x):
        (n,) = x.shape
        return number_along((70_000 * n, 70_000 * n), (0, 1), np.dtype("float32"))

    program = exported(count, jax.ShapeDtypeStruct((n,), jnp.float32))
    np.testing.assert_allclose(program.call(jnp.ones(1)), 4.9e9)


class TestGhosts:
    """The ghost size must provably divide the batch size."""

    average = jaxnorm.ema(0.9)

    def program(self, sizes):
        x = jax.ShapeDtypeStruct(export.symbolic_shape(sizes), jnp.float32)
        function = in_training(self.average, ghost_size=4)
        return function, exported(function, x, described(self.average.init((3,))))

    def test_of_a_multiple(self):
        function, program = self.program("4*n, m, 3")
        arguments = jax.random.normal(jax.random.key(0), (8, 5, 3)), self.average.init((3,))
        assert_close(program.call(*arguments), function(*arguments))

    def test_of_any_number(self):
        with pytest.raises(ValueError, match=r"symbolic number of samples n.*'4\*n'"):
            self.program("n, m, 3")


@pytest.mark.usefixtures("unchecked")
def test_groups_are_of_a_number_of_features():
    (x,) = shapes_of(export.SymbolicScope(), jnp.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"symbolic size n2.*export with a fixed number"):
        exported(jaxnorm.group_norm, x)


@most_different_estimators
def test_a_training_step_is_saved_with_its_statistics(estimator):
    def step(scale, statistics, x):
        def loss(scale):
            y, new = jaxnorm.batch_norm(
                x, statistics, scale, train=True, estimator=estimator
            )
            return jnp.mean(y**3), new

        derivative, new = jax.grad(loss, has_aux=True)(scale)
        return scale - 0.1 * derivative, new

    start = jnp.ones(3), estimator.init((3,))
    (x,) = shapes_of(export.SymbolicScope(), normal(2, 3), kept=(1,))
    program = reloaded(exported(step, *described(start), x))
    given = expected = start
    for samples in (5, 8):
        x = normal(samples, 3)
        given, expected = program.call(*given, x), step(*expected, x)
    assert_close(given, expected)
    assert jax.tree.structure(given) == jax.tree.structure(expected)


def test_other_states_are_saved():
    def states(x):
        statistics = jaxnorm.Statistics(x, x)
        return jaxnorm.summarize(x[:, None]), jaxnorm.as_affine(statistics)

    x = jnp.array([1.0, 2.0])
    assert_close(reloaded(exported(states, described(x))).call(x), states(x))


@pytest.mark.slow
@each_api
@most_different_norms
def test_modules_take_symbolic_sizes(api, norm):
    x = normal(4, 6, 5, 32)
    model, _ = api.pair(norm, x)

    def step(variables, x):
        def loss(params):
            y, statistics = model.apply(
                {**variables, "params": params}, x, **training(norm)
            )
            return jnp.mean(y**3), statistics

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (shape,) = shapes_of(export.SymbolicScope(), x, kept=(3,))
    program = exported(step, described(model.variables), shape)
    for x in (normal(4, 6, 5, 32), normal(3, 2, 9, 32)):
        given, expected = program.call(model.variables, x), step(model.variables, x)
        assert_close(jax.tree.leaves(given), jax.tree.leaves(expected))


class Network(nn.Module):
    """A convolution, and a norm that is folded into it."""

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(jn.BatchNorm(train=train)(nn.Conv(4, (3, 3))(x)))


def folded_linen(x):
    """Returns a model, and its folded version as a function of its variables and x."""
    model = Network()
    variables = model.init(jax.random.key(0), x, train=False)
    folded = jn.fold(model, variables, x, train=False)
    assert len(folded.report.folded) == 1

    def function(variables, x):
        return folded.model.apply(variables, x, train=False)

    return lambda x: model.apply(variables, x, train=False), function, folded.variables


def folded_nnx(x):
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(2, 4, (3, 3), rngs=rngs), jx.BatchNorm(4, rngs=rngs), nnx.relu
    )
    model.eval()
    folded = jx.fold(model, x)
    assert len(folded.report.folded) == 1
    graph, state = nnx.split(folded.model)
    arrays, structure = jax.tree.flatten(state)

    def function(arrays, x):
        return nnx.merge(graph, jax.tree.unflatten(structure, arrays))(x)

    return model, function, arrays


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("folded", [folded_linen, folded_nnx])
def test_a_folded_model_is_saved_to_a_file(folded, tmp_path):
    pytest.importorskip("flatbuffers")
    model, function, variables = folded(normal(1, 8, 8, 2))
    (shape,) = shapes_of(export.SymbolicScope(), normal(2, 8, 8, 2), kept=(3,))
    program = exported(function, described(variables), shape)
    (tmp_path / "model").write_bytes(program.serialize())
    loaded = export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    for x in (normal(1, 8, 8, 2), normal(3, 6, 9, 2)):
        assert_close(loaded.call(variables, x), model(x))
