"""Guarantees of every norm, over the whole table of cases."""

import contextlib
import inspect
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm._core import dtypes, operands
from tests.support import oracle
from tests.support.cases import NORMS, TOLERANCE, cases, rows

pytestmark = pytest.mark.optimized


def precision_of(case):
    """float64 exists only under x64."""
    return jax.enable_x64(True) if case.dtype == "float64" else contextlib.nullcontext()


OTHER_DTYPES = ("bfloat16", "float16", "float64")
FAST = cases(["float32"], ["none", "float"]) + cases(OTHER_DTYPES, ["float"], few=True)


@pytest.mark.parametrize("case", rows(cases(), FAST), ids=str)
def test_equals_the_oracle(case):
    with precision_of(case):
        x, scale, bias, _ = case.arrays()
        y = jax.jit(case.apply)(x, scale, bias)
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        expected = case.expected().y
        error = np.abs(np.asarray(y).astype(np.float64) - expected)
        assert (error <= TOLERANCE[case.dtype] * (1 + np.abs(expected))).all()


@pytest.mark.parametrize(
    "case", rows(cases(["float32"]), cases(["float32"], few=True)), ids=str
)
def test_is_pure(case):
    x, scale, bias, _ = case.arrays()
    before = [np.array(each) for each in (x, scale, bias)]
    first, again = (case.apply(x, scale, bias) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for array, copy in zip((x, scale, bias), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not jax.make_jaxpr(case.apply)(x, scale, bias).effects


@pytest.mark.parametrize(
    "case",
    rows(cases(["float32"], ["none"]), cases(["float32"], ["none"], few=True)),
    ids=str,
)
def test_scale_and_bias_are_optional(case):
    x, scale, bias, _ = case.arrays()
    one, zero = jnp.ones_like(scale), jnp.zeros_like(bias)
    np.testing.assert_array_equal(case.apply(x, None, None), case.apply(x, one, zero))
    np.testing.assert_array_equal(case.apply(x, scale, None), case.apply(x, scale, zero))


@pytest.mark.parametrize(
    "case",
    rows(
        cases(["float32", "bfloat16"], ["mask", "float"]),
        cases(["float32", "bfloat16"], ["mask"], few=True),
    ),
    ids=str,
)
def test_what_has_weight_zero_reaches_no_other_output(case):
    x, scale, bias, _ = case.arrays()
    used = np.broadcast_to(np.asarray(case.weights()) > 0, x.shape)
    clean = case.apply(x, scale, bias)
    for poison in (jnp.nan, jnp.inf, -jnp.inf):
        y = case.apply(jnp.where(used, x, poison), scale, bias)
        np.testing.assert_array_equal(
            np.asarray(y.astype(jnp.float32))[used],
            np.asarray(clean.astype(jnp.float32))[used],
        )
        assert jnp.isfinite(y).all()


@pytest.mark.parametrize(
    "case",
    rows(cases(["float32"], ["none"]), cases(["float32"], ["none"], few=True)),
    ids=str,
)
def test_nothing_weighted_gives_bias_if_the_norm_takes_moments(case):
    x, scale, bias, _ = case.arrays()
    nothing = jnp.zeros((1,) * x.ndim, bool)
    y = case.apply(x, scale, bias, weights=nothing)
    assert jnp.isfinite(y).all()
    if case.norm.own_moments:
        beta = oracle.affine(bias, case.features, x.ndim).astype(np.float32)
        expected = case.norm.finish(np.broadcast_to(beta, y.shape))
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("case", cases(["float32"], ["none"]), ids=str)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: {"feature_axes": 7}, ValueError, "axis 7 is out of range"),
        (lambda c: {"feature_axes": (0, -len(c.shape))}, ValueError, "more than once"),
        (lambda c: {"x": jnp.ones(c.shape, int)}, TypeError, r"x\.astype\(jnp\.float32\)"),
        (lambda c: {"x": jnp.ones(c.shape, complex)}, TypeError, r"jnp\.abs\(x\)"),
        (lambda c: {"x": jnp.ones(())}, ValueError, "rank 0"),
        (lambda c: {"scale": jnp.ones(1)}, ValueError, r"scale has shape \(1,\)"),
        (lambda c: {"bias": jnp.ones(99)}, ValueError, r"bias has shape \(99,\)"),
        (lambda c: {"weights": jnp.ones(99)}, ValueError, r"weights\[\.\.\., None\]"),
        (
            lambda c: {"weights": jnp.ones((1,) * len(c.shape), complex)},
            TypeError,
            "real",
        ),
    ],
)
def test_bad_input_is_refused_with_the_mend(case, change, error, message):
    x, scale, bias, _ = case.arrays()
    given = {
        "x": x,
        "scale": scale,
        "bias": bias,
        "feature_axes": case.axis,
        **change(case),
    }
    with pytest.raises(error, match=message):
        case.norm.apply(**given, features=case.layout.feature_shape)


# Without the frames in which jaxtyping checks their arguments.
CODES = [
    inspect.unwrap(each).__code__
    for each in (
        dtypes.as_operand,
        operands.check_operands,
        operands.check_rounding,
    )
]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)
def test_operands_are_checked_once(norm):
    """A second call, so that nothing is traced, runs each check a single time."""
    x = jnp.ones((4, 2, 3, 6))
    called = Counter()

    def count(frame, event, _):
        code = frame.f_code
        if event == "call" and code in CODES:
            called[code.co_name] += 1

    norm.on_last_axis(x, jnp.ones(6), jnp.ones(6))
    sys.setprofile(count)
    try:
        norm.on_last_axis(x, jnp.ones(6), jnp.ones(6))
    finally:
        sys.setprofile(None)
    assert called == dict.fromkeys((each.co_name for each in CODES), 1)
