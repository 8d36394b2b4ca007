"""What is kept between forward and backward: one copy of x, in its own dtype."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxnorm.linen as jn
from tests.cases import NORMS, Case

DTYPES = ("float32", "bfloat16", "float16")
SHAPE = (64, 8, 8, 16)
CASES = [
    Case(norm, SHAPE, -1, dtype, weighting)
    for norm in NORMS
    for dtype in DTYPES
    for weighting in ("none", "mask")
]


def kept(f, x, *others):
    """The bytes of what a derivative of f keeps, in sizes of x."""
    _, vjp = jax.vjp(f, x, *others)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(vjp)) / x.nbytes


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_one_copy_of_x_is_kept(case, wrap):
    x, scale, bias, _ = case.arrays()
    assert 1 <= kept(wrap(case.apply), x, scale, bias) <= 1.05


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_of_the_size_of_x_is_added_where_x_is_no_variable(case):
    """Symbolic zeros: an array of zeros for dx would be kept as well."""
    x, scale, bias, _ = case.arrays()
    _, vjp = jax.vjp(lambda scale, bias: case.apply(x, scale, bias), scale, bias)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(vjp)) <= 1.05 * x.nbytes


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out", [None, "float32"])
def test_it_stays_one_copy_through_the_module(train, dtype, out):
    """Also where parameters in float32 make the output wider than x."""
    x = jax.random.normal(jax.random.key(0), SHAPE, dtype)
    model = jn.BatchNorm(train=train, dtype=out)
    variables = model.init(jax.random.key(0), x)

    def apply(x, params):
        return model.apply(
            {**variables, "params": params}, x, mutable=["batch_stats"] if train else False
        )[0]

    assert 1 <= kept(apply, x, variables["params"]) <= 1.05


@pytest.mark.usefixtures("lenient")
def test_eight_layers_keep_eight_copies_in_the_compiled_program():
    """Where those of flax keep sixteen; a scan holds what it keeps all at once."""
    x = jnp.ones((1024, 64))

    def temporaries(norm):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return norm(name="norm")(x), None

        layers = nn.scan(
            Block,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=8,
        )()
        variables = layers.init(jax.random.key(0), x, None)

        def loss(params, x):
            (y, _), updates = layers.apply(
                {**variables, "params": params}, x, None, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(y)), updates

        step = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        compiled = step.lower(variables["params"], x).compile()
        return compiled.memory_analysis().temp_size_in_bytes / x.nbytes

    ours = temporaries(lambda name: jn.BatchNorm(train=True, name=name))
    theirs = temporaries(lambda name: nn.BatchNorm(use_running_average=False, name=name))
    assert 8 <= ours <= 12  # the layers' copies, and what a step works with
    assert theirs >= 16
