"""Compares a whole torch model with Linen and NNX: outputs, statistics, and back."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.interop.torch import (
    channels_last,
    flattened,
    from_torch,
    to_torch,
    transposed,
    transposed_padding,
)

torch = pytest.importorskip("torch", reason="torch is not installed")
from tests.interop.torch_models import (  # noqa: E402
    descend,
    evaluate,
    first,
    last,
    randomize,
    state_of,
    train,
)

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("lenient")]


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


class Theirs(torch.nn.Module):
    """A torch model with every kind of convolution, all norms, and a flatten."""

    def __init__(self):
        super().__init__()
        net = torch.nn
        self.stem = net.Sequential(net.Conv2d(3, 4, 3, padding=1), net.BatchNorm2d(4))
        self.blocks = net.ModuleList(
            net.ModuleDict(
                {
                    "conv": net.Conv2d(4, 4, (3, 1), stride=2, groups=groups, bias=False),
                    "norm": norm,
                }
            )
            for groups, norm in ((2, net.GroupNorm(2, 4)), (4, net.BatchNorm2d(4)))
        )
        self.up = net.ConvTranspose2d(4, 6, (3, 2), 2, padding=1, output_padding=1)
        self.instance = net.InstanceNorm2d(6, affine=True)
        self.image = net.LayerNorm((6, 4, 3))
        self.fc = net.Linear(6 * 4 * 3, 5)
        self.rms = net.RMSNorm(5)
        self.last = net.BatchNorm1d(5, momentum=None)
        self.out = net.Linear(5, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block["norm"](block["conv"](x)).relu()
        x = self.image(self.instance(self.up(x)))
        return self.out(self.last(self.rms(self.fc(x.flatten(1)))))


TORCHS_AVERAGE = {"estimator": jaxnorm.ema(0.9, unbiased=True)}


class Block(nn.Module):
    """A block of `Ours`."""

    groups: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(
            4, (3, 1), 2, padding=0, feature_group_count=self.groups, use_bias=False
        )
        return nn.relu(self.norm(name="norm")(conv(x)))


class Ours(nn.Module):
    """The same model in Linen, with other names."""

    @nn.compact
    def __call__(self, x, train):
        x = jn.BatchNorm(train=train, **TORCHS_AVERAGE)(nn.Conv(4, (3, 3), padding=1)(x))
        x = Block(2, partial(jn.GroupNorm, 2, epsilon=1e-5))(x)
        x = Block(4, partial(jn.BatchNorm, train=train, **TORCHS_AVERAGE))(x)
        padding = transposed_padding((3, 2), 1, 1)
        x = nn.ConvTranspose(6, (3, 2), (2, 2), padding=padding)(x)
        x = jn.InstanceNorm(epsilon=1e-5)(x)
        over = (1, 2, 3)
        x = jn.LayerNorm(reduction_axes=over, feature_axes=over, epsilon=1e-5)(x)
        x = nn.Dense(5)(x.reshape(len(x), -1))
        x = jn.RMSNorm(epsilon=float(np.finfo(np.float32).eps))(x)
        x = jn.BatchNorm(train=train, estimator=jaxnorm.cumulative(unbiased=True))(x)
        return nn.Dense(2)(x)


NAMES = {
    "stem.0": "Conv_0",
    "stem.1": "BatchNorm_0",
    "blocks.*.conv": "Block_{}/Conv_0",
    "blocks.*.norm": "Block_{}/norm",
    "up": "ConvTranspose_0",
    "instance": "InstanceNorm_0",
    "image": "LayerNorm_0",
    "fc": "Dense_0",
    "rms": "RMSNorm_0",
    "last": "BatchNorm_1",
    "out": "Dense_1",
}
RULES = {"fc": flattened(6, 4, 3), "image": channels_last()}


# Compiled as a whole, because running operation by operation takes longer.
APPLY = jax.jit(Ours().apply, static_argnames=("train", "mutable"))


def images(rng, number=1):
    return rng.normal(0, 1, (number, 8, 14, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_in_linen(trained, rng):
    theirs, x = Theirs(), images(rng, 5)
    if trained:
        descend(theirs, [first(each) for each in images(rng, 3)])
    else:
        randomize(theirs)
    template = jax.eval_shape(lambda: Ours().init(jax.random.key(0), x[0], train=False))
    state = state_of(theirs)
    variables, report = from_torch(state, template, NAMES, rules=RULES)
    close(APPLY(variables, x[0], train=False), evaluate(theirs, first(x[0])))
    assert len(report.entries) == len(state)

    back, _ = to_torch(variables, state, NAMES, rules=RULES)
    np.testing.assert_equal(back, state)

    for batch in x[:3]:
        y, updates = APPLY(variables, batch, train=True, mutable="batch_stats")
        variables = variables | updates
    close(y, train(theirs, [first(each) for each in x[:3]]))
    back, _ = to_torch(variables, state, NAMES, rules=RULES)
    for name, array in state_of(theirs).items():
        if name.endswith("num_batches_tracked") and name != "last.num_batches_tracked":
            continue  # not counted here
        close(back[name], array)


PADDING = transposed_padding((3, 3), padding=1)


class NnxModel(nnx.Module):
    """A model whose attributes have the names of torch's modules."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), padding=1, rngs=rngs)
        self.norm = jx.BatchNorm(4, **TORCHS_AVERAGE, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 4, (3, 3), 2, padding=PADDING, rngs=rngs)
        self.image = jx.LayerNorm(
            4 * 3 * 3,
            epsilon=1e-5,
            reduction_axes=(1, 2, 3),
            feature_axes=(1, 2, 3),
            rngs=rngs,
        )
        self.fc = nnx.Linear(36, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(self.norm(self.conv(x)), (2, 2), (2, 2))
        return self.fc(self.image(self.up(x)).reshape(len(x), -1))


CALL = nnx.jit(lambda model, x: model(x))


class TorchModel(torch.nn.Module):
    """The same model in torch."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.up = torch.nn.ConvTranspose2d(4, 4, 3, 2, padding=1)
        self.image = torch.nn.LayerNorm((4, 3, 3))
        self.fc = torch.nn.Linear(36, 2)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(self.norm(self.conv(x)), 2)
        return self.fc(self.image(self.up(x)).flatten(1))


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_in_nnx(trained, rng):
    """Two modules have the same shapes, and one parameter is stored flat."""
    theirs, ours = TorchModel(), NnxModel(nnx.Rngs(0))
    x = rng.normal(size=(5, 6, 4, 4, 3)).astype(np.float32)
    if trained:
        descend(theirs, [first(each) for each in x[:3]])
    else:
        randomize(theirs)
    rules = {"fc": flattened(4, 3, 3), "image": channels_last(), "up": transposed()}
    template, state = nnx.to_pure_dict(nnx.state(ours)), state_of(theirs)
    converted, _ = from_torch(state, template, rules=rules)
    nnx.update(ours, converted)
    ours.eval()
    close(CALL(ours, x[0]), evaluate(theirs, first(x[0])))

    ours.train()
    for batch in x[:3]:
        y = CALL(ours, batch)
    close(y, train(theirs, [first(each) for each in x[:3]]))
    back, _ = to_torch(nnx.to_pure_dict(nnx.state(ours)), state, rules=rules)
    del back["norm.num_batches_tracked"]  # not counted here
    for name, array in back.items():
        close(array, state_of(theirs)[name])
    np.testing.assert_equal(to_torch(converted, state, rules=rules).arrays, state)


KERNELS = [
    ("Conv1d", (3,), {"stride": 2, "padding": 1}, {}),
    ("Conv3d", (3, 2, 1), {"dilation": 2}, {}),
    ("Conv2d", (3, 2), {"groups": 2, "padding": (1, 0)}, {}),
    ("Conv2d", (3, 3), {"groups": 4}, {}),
    ("ConvTranspose1d", (4,), {"stride": 2, "padding": 1, "output_padding": 1}, {}),
    ("ConvTranspose2d", (3, 2), {"stride": 2, "dilation": 2, "padding": (1, 0)}, {}),
    ("ConvTranspose3d", (3, 2, 1), {"stride": 2}, {}),
    ("ConvTranspose2d", (3, 2), {"stride": 2}, {"transpose_kernel": True}),
]


def test_same_is_not_torchs_padding(rng):
    """With a stride, SAME padding is not symmetric."""
    theirs = torch.nn.Conv1d(1, 1, 3, stride=2, padding=1)
    x, state = rng.normal(size=(1, 6, 1)).astype(np.float32), state_of(theirs)
    wanted = last(evaluate(theirs, first(x)))
    for padding, same in ((1, True), ("SAME", False)):
        ours = nn.Conv(1, (3,), 2, padding)
        variables, _ = from_torch(state, ours.init(jax.random.key(0), x))
        assert np.allclose(ours.apply(variables, x), wanted, atol=1e-5) == same


@pytest.mark.parametrize(("name", "size", "arguments", "options"), KERNELS)
@pytest.mark.parametrize("features", [4, 8])
def test_convolutions(name, size, arguments, options, features, rng):
    """Also with as many features as channels, where the shapes are ambiguous."""
    theirs = getattr(torch.nn, name)(4, features, size, **arguments)
    x = rng.normal(size=(2, *(7, 6, 5)[: len(size)], 4)).astype(np.float32)
    strides, dilation = (arguments.get(key, 1) for key in ("stride", "dilation"))
    padding = arguments.get("padding", 0)
    if "Transpose" in name:
        extra = arguments.get("output_padding", 0)
        ours = nn.ConvTranspose(
            features,
            size,
            (strides,) * len(size),
            transposed_padding(size, padding, extra, dilation),
            kernel_dilation=dilation,
            **options,
        )
        rules = {"**": transposed(**options)}
    else:
        pads = (padding,) * len(size) if isinstance(padding, int) else padding
        groups = {"feature_group_count": arguments.get("groups", 1)}
        ours = nn.Conv(
            features, size, strides, [(p, p) for p in pads], 1, dilation, **groups
        )
        rules = {}
    template, state = jax.eval_shape(ours.init, jax.random.key(0), x), state_of(theirs)
    variables, _ = from_torch(state, template, rules=rules)
    close(jax.jit(ours.apply)(variables, x), last(evaluate(theirs, first(x))))
    np.testing.assert_equal(to_torch(variables, state, rules=rules).arrays, state)
