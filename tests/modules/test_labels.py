"""Labels: which parameters belong to norms, and which biases a norm cancels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm import decay_mask

X = jax.random.normal(jax.random.key(1), (4, 5, 3))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        dense = functools.partial(nn.Dense, 4)
        x = nn.relu(jn.BatchNorm(train=train, name="batch")(dense(name="before_batch")(x)))
        x = nn.InstanceNorm(name="instance")(nn.Conv(4, (2,), name="before_instance")(x))
        x = jn.LayerNorm(name="layer")(dense(name="before_layer")(nn.relu(x)))
        x = nn.BatchNorm(use_running_average=True, name="frozen")(dense(name="fixed")(x))
        y = dense(name="shared")(nn.relu(x))
        x = nn.BatchNorm(not train, axis=(1, 2), name="positions")(y) + y
        y = nn.remat(nn.Dense)(4, name="both")(nn.relu(x))
        x = jn.BatchNorm(train=train, name="one")(y) + jn.BatchNorm(
            train=train, name="two"
        )(y)
        return nn.Dense(2, name="last")(x)


class NNX(nnx.Module):
    def __init__(self, rngs):
        dense = functools.partial(nnx.Linear, 4, 4, rngs=rngs)
        self.before_batch = nnx.Linear(3, 4, rngs=rngs)
        self.batch = jx.BatchNorm(4, rngs=rngs)
        self.before_instance = nnx.Conv(4, 4, (2,), rngs=rngs)
        self.instance = nnx.InstanceNorm(4, rngs=rngs)
        self.before_layer, self.layer = dense(), jx.LayerNorm(4, rngs=rngs)
        self.fixed = dense()
        self.frozen = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.shared = dense()
        self.positions = jx.BatchNorm(5 * 4, axis=(1, 2), rngs=rngs)
        self.both, self.one = dense(), jx.BatchNorm(4, rngs=rngs)
        self.two, self.last = jx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.batch(self.before_batch(x)))
        x = self.instance(self.before_instance(x))
        x = self.frozen(self.fixed(self.layer(self.before_layer(nnx.relu(x)))))
        y = self.shared(nnx.relu(x))
        x = self.positions(y) + y
        y = self.both(nnx.relu(x))
        return self.last(self.one(y) + self.two(y))


NORMS = {"batch", "instance", "layer", "frozen", "positions", "one", "two"}
CANCELLED = {"before_batch", "before_instance", "both"}


def expected(parameters):
    """Returns the expected labels, by the names of the modules."""
    return {
        module: dict.fromkeys(arrays, "norm")
        if module in NORMS
        else {
            name: "cancelled" if name == "bias" and module in CANCELLED else "weight"
            for name in arrays
        }
        for module, arrays in parameters.items()
    }


@pytest.fixture(scope="module")
def variables():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.jit(functools.partial(Linen().init, train=True))(jax.random.key(0), X)


@pytest.fixture(scope="module")
def model():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return nnx.jit(lambda: NNX(nnx.Rngs(0)))()


@pytest.mark.usefixtures("lenient")
def test_labels_of_linen(variables):
    labels = jn.parameter_labels(Linen(), variables, X, train=True)
    assert labels == expected(variables["params"])
    evaluated = jn.parameter_labels(Linen(), variables, X, train=False)
    assert evaluated["before_batch"] == {"kernel": "weight", "bias": "weight"}
    assert evaluated["before_instance"]["bias"] == "cancelled"


@pytest.mark.usefixtures("lenient")
def test_labels_of_nnx(model):
    before = nnx.graphdef(model)
    labels = jx.parameter_labels(model, X)
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert nnx.to_pure_dict(labels) == expected(parameters)
    assert nnx.graphdef(model) == before
    assert not model.batch.mean[...].any()


@pytest.mark.usefixtures("lenient")
def test_cancelled_biases_and_no_others_have_no_gradient(variables):
    def loss(params):
        y, _ = Linen().apply(
            {**variables, "params": params}, X, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y))

    labels = jn.parameter_labels(Linen(), variables, X, train=True)
    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for module, arrays in gradients.items():
        if "bias" in arrays and module not in NORMS:
            bias, kernel = (np.abs(arrays[each]).max() for each in ("bias", "kernel"))
            zero = bias < 1e-4 * kernel
            assert zero == (labels[module]["bias"] == "cancelled"), module


@pytest.mark.usefixtures("lenient")
def test_norms_and_cancelled_biases_do_not_decay(variables):
    labels = jn.parameter_labels(Linen(), variables, X, train=True)
    params = jax.tree.map(jnp.ones_like, variables["params"])
    optimizer = optax.adamw(1.0, weight_decay=0.5, mask=decay_mask(labels))
    nothing = jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(
        lambda params: optimizer.update(nothing, optimizer.init(params), params)
    )
    updates, _ = update(params)
    decays = jax.tree.map(lambda each: bool((each != 0).all()), updates)
    assert decays == jax.tree.map(lambda label: label == "weight", labels)


@nnx.jit
def stepped(optimizer, model, gradients):
    optimizer.update(model, gradients)


@pytest.mark.usefixtures("lenient")
def test_labels_part_the_parameters_for_optax_with_nnx(model):
    """The labels match the parameters that `nnx.Optimizer` passes."""
    model = nnx.clone(model)
    labels = jx.parameter_labels(model, X)
    rates = {"norm": optax.sgd(0.5), "cancelled": optax.set_to_zero()}
    transform = optax.multi_transform({**rates, "weight": optax.sgd(0.25)}, labels)
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    stepped(optimizer, model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    moved = jax.tree.map(lambda a, b: float(jnp.mean(a - b)), before, after)
    steps = {"norm": 0.5, "cancelled": 0.0, "weight": 0.25}
    wanted = jax.tree.map(steps.get, nnx.to_pure_dict(labels))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), moved, wanted)


@pytest.mark.usefixtures("lenient")
def test_a_mask_of_labels_of_nnx_goes_into_adamw(model):
    model = nnx.clone(model)
    mask = decay_mask(jx.parameter_labels(model, X))
    optimizer = nnx.Optimizer(model, optax.adamw(1.0, mask=mask), wrt=nnx.Param)
    scale, kernel = model.batch.scale[...], model.last.kernel[...]
    stepped(optimizer, model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    np.testing.assert_array_equal(scale, model.batch.scale[...])
    assert not np.allclose(kernel, model.last.kernel[...], rtol=1e-6)


class Relu(nn.Dense):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return nn.relu(x @ kernel + bias)


def batch(x):
    return jn.BatchNorm(train=True)(x)


def mapped(x):
    axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    return batch(nn.vmap(nn.Dense, in_axes=None, out_axes=0, axis_size=2, **axes)(4)(x))


def scanned(x, *, returned):
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            y = nn.Dense(3)(x)
            return nn.relu(jn.BatchNorm(train=True)(y)), y if returned else None

    axes = {"params": 0, "batch_stats": 0}
    return nn.scan(Body, axes, split_rngs={"params": True}, length=2)()(x, None)


TRAPS = {
    "several axes of features": (lambda x: batch(nn.DenseGeneral((2, 3))(x)), False),
    "a bias for each sample": (
        lambda x: batch(nn.DenseGeneral(7, batch_dims=(0,))(x)),
        False,
    ),
    "a bias for each index of a map": (mapped, False),
    "a layer of another kind": (lambda x: batch(Relu(4)(x)), False),
    "an output of a scan": (functools.partial(scanned, returned=True), False),
    "within a scan": (functools.partial(scanned, returned=False), True),
    "one axis of features": (lambda x: batch(nn.DenseGeneral(4)(x)), True),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("function", "cancelled"), TRAPS.values(), ids=TRAPS)
def test_a_bias_is_cancelled_only_where_it_is_one_number_for_all_that_is_averaged(
    function, cancelled
):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    variables = jax.eval_shape(Model().init, jax.random.key(0), X)
    labels = jax.tree.leaves(jn.parameter_labels(Model(), variables, X))
    assert ("cancelled" in labels) == cancelled
