"""Norms that cannot be folded exactly are kept, and the report says why."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxnorm.linen as jn
from tests.modules.filled import variables_of


class Standardised(nn.Dense):
    """A layer that normalises its kernel, so that scaling the kernel has no effect."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        return x @ (kernel / jnp.linalg.norm(kernel, axis=0))


def norm(**arguments):
    return jn.BatchNorm(train=False, name="norm", **arguments)


def twice(x):
    dense = nn.Dense(4, name="dense")
    return norm()(dense(x)) + dense(x)


def shared_output(x):
    y = nn.Dense(4, name="dense")(x)
    return norm()(y) + y


def tied(x):
    dense = nn.Dense(4, use_bias=False, name="dense")
    y = norm()(dense(x))
    return nn.relu(y) @ dense.variables["params"]["kernel"].T


def scanned(x):
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(norm()(nn.Dense(4, name="dense")(x))), None

    axes = {"params": 0, "batch_stats": 0}
    return nn.scan(Body, axes, split_rngs={"params": True}, length=2)(name="all")(x, None)[
        0
    ]


def mapped(x):
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x):
            return norm()(nn.Dense(4, name="dense")(x))

    axes = {"params": 0, "batch_stats": 0}
    return nn.vmap(Body, axes, split_rngs={"params": True})(name="all")(x)


def derived(x):
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jax.jit(lambda y: y)(norm()(nn.Dense(4, name="dense")(x)))

    return nn.vjp(lambda body, x: body(x).sum(), Body(name="all"), x)[1](1.0)[1]


class Besides(nn.Module):
    """A layer that shares a scope with the module that contains it."""

    def setup(self):
        self.dense, self.norm = nn.Dense(4, use_bias=False), jn.BatchNorm(train=False)
        nn.share_scope(self, self.dense)
        self.bias = self.param("bias", nn.initializers.ones, (4,))

    def __call__(self, x):
        return self.norm(self.dense(x)) + self.bias


def signed(x, kernel, numbers, **options):
    return jax.lax.dot_general(x, jnp.sign(kernel), numbers, **options)


UNSAFE = {
    "the layer is used twice": (twice, "dense is called 2 times"),
    "its output is used twice": (shared_output, "also goes to add"),
    "the kernel is used elsewhere": (
        tied,
        "dense has variables that are also used elsewhere",
    ),
    "an activation between": (
        lambda x: norm()(nn.relu(nn.Dense(4)(x))),
        "its input comes from max in relu; and its output goes to the model's output",
    ),
    "a reshape between": (
        lambda x: norm()(nn.Dense(8)(x).reshape(-1, 2, 4)),
        "its input comes from reshape",
    ),
    "dropout that drops": (
        lambda x: norm()(nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(x))),
        "its input comes from select_n",
    ),
    "zero padding behind it": (
        lambda x: nn.Conv(2, (3,), name="conv")(norm()(nn.relu(x))),
        "conv, which comes after it, pads with zeros",
    ),
    "a transposed layer behind it": (
        lambda x: nn.ConvTranspose(2, (3,), padding="VALID", name="conv")(
            norm()(nn.relu(x))
        ),
        "conv, which comes after it, is transposed",
    ),
    "zeros put into the input": (
        lambda x: nn.Conv(2, (2,), input_dilation=2, padding=[(0, 0)], name="conv")(
            norm()(x)
        ),
        "conv, which comes after it, dilates its input with zeros",
    ),
    "a mask": (
        lambda x: norm()(nn.Dense(4)(x), mask=jnp.ones((*x.shape[:-1], 1), bool)),
        "it is called with a mask or weights",
    ),
    "a scale of each sample": (
        lambda x: norm()(nn.Dense(4)(x), scale=jnp.ones((len(x), 1, 1))),
        "it is called with a scale or bias",
    ),
    "statistics that are updated": (
        lambda x: norm(update=True)(nn.Dense(4)(x)),
        "it updates its statistics",
    ),
    "features on another axis": (
        lambda x: norm(axis=-2)(nn.Dense(4)(x)),
        "its feature axes are (1,), not the last axis alone",
    ),
    "weight normalisation": (
        lambda x: norm()(nn.WeightNorm(nn.Dense(4, name="dense"))(x)),
        "dense does not use its kernel as it is stored",
    ),
    "a layer of another kind": (
        lambda x: norm()(Standardised(4, name="dense")(x)),
        "dense is a Standardised, which may use its kernel differently",
    ),
    "a masked kernel": (
        lambda x: norm()(nn.Conv(4, (1,), mask=jnp.ones((1, 4, 4)), name="conv")(x)),
        "conv masks its kernel",
    ),
    "several axes of features": (
        lambda x: norm()(nn.DenseGeneral((2, 4), name="dense")(x)),
        "has a kernel of shape (4, 2, 4)",
    ),
    "a scan over layers": (scanned, "does not use its"),
    "a map over layers": (mapped, "is mapped"),
    "a map over features": (
        lambda x: jax.vmap(norm(), in_axes=-1, out_axes=-1)(nn.Dense(4)(x)),
        "is mapped",
    ),
    "a derivative of it": (derived, "has variables that are also used elsewhere"),
    "a product of its own": (
        lambda x: norm()(nn.Dense(4, dot_general=signed, name="dense")(x)),
        "dense has a custom dot_general, conv_general_dilated or promote_dtype",
    ),
    "a bias that is not its own": (
        lambda x: Besides(name="all")(x),
        "shares its scope with a bias that is not its own",
    ),
    "axes of its own": (
        lambda x: nn.DenseGeneral(4, axis=-2, name="dense")(norm()(nn.relu(x))),
        "dense has a kernel of shape (3, 4), or contracts axes other than the last",
    ),
    "a coarse layer behind it": (
        lambda x: nn.Dense(4, dtype=jnp.bfloat16, name="dense")(norm()(nn.relu(x))),
        "computes in bfloat16, which would lose precision without centring",
    ),
    "a coarse norm": (
        lambda x: nn.Dense(4)(norm(dtype=jnp.bfloat16)(nn.relu(x)).astype(x.dtype)),
        "its output goes to convert_element_type",
    ),
    "a norm called twice": (
        lambda x: (lambda n: n(nn.Dense(4)(x)) + n(nn.Dense(4)(x)))(norm()),
        "is called 2 times",
    ),
    "another norm before it": (
        lambda x: norm()(jn.BatchNorm(train=False, name="first")(nn.relu(x))),
        "it normalises the output of first",
    ),
}


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("function", "reason"), UNSAFE.values(), ids=UNSAFE.keys())
def test_what_is_not_safe_is_kept_and_told(function, reason):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    x = jnp.ones((2, 3, 4))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = variables_of(Model(), rngs, x)
    report = jn.fold(Model(), variables, x, rngs=rngs, mutable=["batch_stats"]).report
    kept = {each.norm: each.reason for each in report.kept}
    assert reason in kept.get("norm", kept.get("all/norm", "")), str(report)
