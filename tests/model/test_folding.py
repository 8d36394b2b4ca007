"""Folding a norm into a layer: the layer computes both, in any layout."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnorm import (
    Affine,
    Statistics,
    as_affine,
    batch_norm,
    ema,
    fold_input,
    fold_output,
    population,
    skip_nonfinite,
)
from jaxnorm.statistics.estimator import Estimator


class Case(NamedTuple):
    """A layer `layer(x, kernel)`, with features on the axis `features` of x and y."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    layer: object
    layout: str | None = None
    groups: int = 1
    features: int = -1
    padding: str = "VALID"
    transposed: bool = False


def conv(numbers, groups=1, padding="VALID", strides=None, dilation=None):
    spatial = len(numbers[1]) - 2
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=strides or (1,) * spatial,
        padding=padding,
        rhs_dilation=dilation or (1,) * spatial,
        dimension_numbers=numbers,
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def torch_transposed(x, kernel, groups, stride):
    """As in torch, for x of (N, C, H, W) and a kernel of (in, out/groups, h, w)."""
    n, _, height, width = x.shape
    _, out, rows, columns = kernel.shape
    sizes = (stride * (height - 1) + rows, stride * (width - 1) + columns)
    y = np.zeros((n, groups * out, *sizes))
    per_group = x.shape[1] // groups
    for c, i, j in np.ndindex(x.shape[1], height, width):
        first, row, column = c // per_group * out, i * stride, j * stride
        window = y[:, first : first + out, row : row + rows, column : column + columns]
        window += np.einsum("n,ohw->nohw", x[:, c, i, j], kernel[c])
    return y


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
CASES = {
    "dense": Case((4, 3), (3, 5), jnp.matmul),
    "dense, torch's": Case((4, 3), (5, 3), lambda x, k: x @ k.T, layout="OI"),
    "conv 1-D": Case((2, 7, 3), (3, 3, 5), conv(("NWC", "WIO", "NWC"))),
    "conv 2-D, strided": Case((2, 7, 7, 3), (3, 2, 3, 5), conv(NHWC, strides=(2, 3))),
    "conv 2-D, dilated": Case((2, 7, 7, 3), (3, 2, 3, 5), conv(NHWC, dilation=(2, 1))),
    "conv 2-D, padded": Case(
        (2, 5, 5, 3), (3, 3, 3, 5), conv(NHWC, padding="SAME"), padding="SAME"
    ),
    "conv 2-D, grouped": Case((2, 5, 5, 4), (3, 3, 2, 6), conv(NHWC, groups=2), groups=2),
    "conv 2-D, depthwise": Case((2, 5, 5, 4), (3, 3, 1, 8), conv(NHWC, groups=4), groups=4),
    "conv 3-D": Case((1, 3, 4, 3, 2), (2, 2, 2, 2, 3), conv(("NDHWC", "DHWIO", "NDHWC"))),
    "conv 2-D, torch's": Case(
        (2, 3, 5, 5), (5, 3, 3, 2), conv(NCHW), layout="OIHW", features=1
    ),
    "conv 2-D, torch's grouped": Case(
        (2, 4, 5, 5), (6, 2, 3, 3), conv(NCHW, groups=2), "OIHW", groups=2, features=1
    ),
    "transposed, flax's": Case(
        (2, 4, 4, 3),
        (3, 3, 3, 5),
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME"),
        transposed=True,
    ),
    "transposed, keras's": Case(
        (2, 4, 4, 3),
        (3, 3, 5, 3),
        lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME", transpose_kernel=True),
        layout="HWOI",
        transposed=True,
    ),
    "transposed, torch's grouped": Case(
        (2, 4, 3, 3),
        (4, 3, 2, 2),
        functools.partial(torch_transposed, groups=2, stride=2),
        layout="IOHW",
        groups=2,
        features=1,
        transposed=True,
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def random_affine(rng, features):
    return Affine(
        *(
            jnp.asarray(rng.normal(size=features), jnp.float32)
            + (1 if name == "scale" else 0)
            for name in Affine._fields
        )
    )


def along(values, case, rank):
    shape = [1] * rank
    shape[case.features] = len(values)
    return np.asarray(values, np.float64).reshape(shape)


def applied(affine, x, case):
    x = np.asarray(x, np.float64)
    scale, centre, shift = (along(each, case, x.ndim) for each in affine)
    return scale * (x - centre) + shift


def drawn(rng, case):
    """Returns x, a kernel, and the layer's output."""
    x, kernel = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (case.x, case.kernel)
    )
    return x, kernel, np.asarray(case.layer(x, kernel), np.float64)


def check(case, x, kernel, bias, expected):
    y = np.asarray(case.layer(x, kernel), np.float64)
    y = y + along(bias, case, y.ndim)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@each_case
@pytest.mark.parametrize("biased", [True, False])
def test_a_norm_behind_a_layer(case, biased, rng):
    x, kernel, y = drawn(rng, case)
    features = y.shape[case.features]
    affine = random_affine(rng, features)
    bias = jnp.asarray(rng.normal(size=features), jnp.float32) if biased else None
    if biased:
        y = y + along(bias, case, y.ndim)
    folded = fold_output(kernel, bias, affine, layout=case.layout, groups=case.groups)
    check(case, x, *folded, applied(affine, y, case))


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not case.transposed]
)
def test_a_norm_before_a_layer(name, rng):
    case = CASES[name]
    x, kernel, _ = drawn(rng, case)
    affine = random_affine(rng, x.shape[case.features])
    options = {"layout": case.layout, "groups": case.groups, "padding": case.padding}
    if case.padding == "SAME":
        with pytest.raises(ValueError, match="pads with zeros"):
            fold_input(kernel, None, affine, **options)
        return
    normalised = jnp.asarray(applied(affine, x, case), jnp.float32)
    expected = np.asarray(case.layer(normalised, kernel), np.float64)
    bias = jnp.asarray(rng.normal(size=expected.shape[case.features]), jnp.float32)
    expected = expected + along(bias, case, expected.ndim)
    check(case, x, *fold_input(kernel, bias, affine, **options), expected)


def test_no_norm_before_a_grouped_transposed_layer(rng):
    case = CASES["transposed, torch's grouped"]
    with pytest.raises(ValueError, match="transposed"):
        fold_input(
            jnp.ones(case.kernel), None, random_affine(rng, 4), layout="IOHW", groups=2
        )


@pytest.mark.parametrize(
    ("padding", "kernel", "possible"),
    [
        ("SAME", (1, 1), True),
        ("CIRCULAR", (3, 3), True),
        ("REFLECT", (3, 3), True),
        ("CAUSAL", (3,), False),
        (0, (3, 3), True),
        (1, (1, 1), False),
        (((0, 0), (0, 1)), (3, 3), False),
        ((0, (0, 0)), (3, 3), True),
    ],
)
def test_which_padding_a_norm_before_a_layer_allows(padding, kernel, possible, rng):
    weights, affine = jnp.ones((*kernel, 2, 3)), random_affine(rng, 2)
    if possible:
        fold_input(weights, None, affine, padding=padding)
    else:
        with pytest.raises(ValueError, match="pads with zeros"):
            fold_input(weights, None, affine, padding=padding)


def test_norms_on_both_sides_fold_in_either_order(rng):
    kernel = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    before, behind = random_affine(rng, 3), random_affine(rng, 4)
    one = fold_output(*fold_input(kernel, None, before), behind)
    other = fold_input(*fold_output(kernel, None, behind), before)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), one, other)


@pytest.mark.parametrize(
    "estimator",
    [ema(0.9), ema(0.9, debias=True), population(), skip_nonfinite(ema(0.9))],
    ids=["ema", "debiased", "population", "guarded"],
)
def test_an_affine_function_is_what_the_norm_does_in_evaluation(estimator: Estimator, rng):
    x = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=3), jnp.float32) for _ in range(2))
    state = estimator.init((3,))
    _, state = batch_norm(x, state, train=True, estimator=estimator)
    y, _ = batch_norm(x, state, scale, bias, train=False, estimator=estimator)
    affine = as_affine(state, scale, bias, estimator=estimator)
    scale, centre, shift = (np.asarray(each) for each in affine)
    np.testing.assert_allclose(
        y, scale * (np.asarray(x) - centre) + shift, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-10, 1e-5])
@pytest.mark.parametrize("var", [0.0, 1e-12, 1e-38])
def test_a_dead_feature_stays_what_it_is(epsilon, var):
    """Its input is always μ, and its output stays exact when scaled by 1/√ε."""
    mean = jnp.array([3.0, 0.0, 1e4])
    statistics = Statistics(mean=mean, var=jnp.full(3, var))
    bias = jnp.array([0.5, -0.25, 2.0])
    affine = as_affine(statistics, bias=bias, epsilon=epsilon)
    # For a dead feature, the kernel is 0 and the bias is the mean.
    kernel, folded = fold_output(jnp.zeros((2, 3)), mean, affine)
    np.testing.assert_array_equal(kernel, 0)
    np.testing.assert_array_equal(folded, bias)


def test_a_constant_feature_without_epsilon_gives_its_bias(rng):
    """As in the norm itself, nothing is infinite."""
    x = jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)
    statistics = Statistics(mean=jnp.ones(2), var=jnp.zeros(2))
    bias = jnp.array([0.5, -1.0])
    y, _ = batch_norm(x, statistics, bias=bias, train=False, epsilon=0.0)
    kernel, folded = fold_output(
        jnp.eye(2), None, as_affine(statistics, bias=bias, epsilon=0.0)
    )
    np.testing.assert_array_equal(y, np.asarray(x @ kernel) + np.asarray(folded))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_are_rounded_once(dtype, rng):
    kernel = jnp.asarray(rng.normal(size=(3, 4)), dtype)
    bias = jnp.asarray(rng.normal(size=4), dtype)
    affine = random_affine(rng, 4)
    fine = fold_output(kernel.astype(jnp.float32), bias.astype(jnp.float32), affine)
    for given, exact in zip(fold_output(kernel, bias, affine), fine, strict=True):
        assert given.dtype == dtype
        np.testing.assert_array_equal(given, exact.astype(dtype))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: fold_output(jnp.ones((3, 4)), None, a), ValueError, "output features"),
        (lambda a: fold_input(jnp.ones((3, 2)), None, a), ValueError, "input features"),
        (lambda a: fold_output(jnp.ones((3, 2)), jnp.ones(3), a), ValueError, "bias has"),
        (lambda a: fold_input(jnp.ones((2, 3)), jnp.ones(2), a), ValueError, "bias has"),
        (lambda a: fold_output(jnp.ones((3, 2)), None, a, layout="OHI"), ValueError, "lay"),
        (lambda a: fold_output(jnp.ones((3, 2)), None, a, layout="OO"), ValueError, "lay"),
        (lambda a: fold_output(jnp.ones(2), None, a), ValueError, "layout"),
        (lambda a: fold_output(jnp.ones((3, 2), int), None, a), TypeError, "kernel has"),
        (lambda a: as_affine(a), TypeError, "statistics"),
        (
            lambda a: as_affine(Statistics(a.centre, a.scale), jnp.ones(3)),
            ValueError,
            "scale has shape",
        ),
        (
            lambda a: as_affine(Statistics(a.centre, a.scale), epsilon=-1.0),
            ValueError,
            "epsilon",
        ),
    ],
)
def test_errors_say_what_does_not_fit(call, error, words):
    affine = Affine(jnp.ones(2), jnp.ones(2), jnp.ones(2))
    with pytest.raises(error, match=words):
        call(affine)
