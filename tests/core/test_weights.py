"""Weights act as repetition and padding as absence: outputs, gradients and statistics."""

import functools

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnorm import batch_norm, ema
from tests.support.cases import cases, rows

REPEATED = 6
CASES = [
    case
    for case in cases(["float32"], ["none"])
    if case.norm.own_moments and case.layout.cut is not None
]
LAST = [case for case in CASES if case.layout == case.norm.layouts[-1]]
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def compiled(case):
    """Returns output and gradients of a case with weights, for a cotangent g."""

    @jax.jit
    def run(x, scale, bias, g, weights):
        apply = functools.partial(case.apply, weights=weights)
        y, vjp = jax.vjp(apply, x, scale, bias)
        return y, *vjp(g)

    return lambda *arrays: jax.tree.map(np.asarray, run(*arrays))


def along(case, vector):
    """Returns a vector along the axis of samples or positions."""
    return np.expand_dims(
        vector, [i for i in range(len(case.shape)) if i != case.layout.cut]
    )


@pytest.mark.parametrize("case", rows(CASES, LAST), ids=str)
def test_float_weights_are_repetition(case):
    """The total number of copies is fixed, so that each case compiles for one shape."""
    cut = case.layout.cut
    x, scale, bias, g = map(np.asarray, case.arrays())
    number = x.shape[cut]
    places = st.lists(st.integers(0, number - 1), min_size=REPEATED, max_size=REPEATED)

    @settings(max_examples=10)
    @given(places)
    def equal(places):
        counts = np.bincount(places, minlength=number)
        weights = np.float32(along(case, counts))
        y, dx, *others = compiled(case)(x, scale, bias, weights * g, weights)
        copies = np.repeat(np.arange(number), counts)
        of_copies, dx_of_copies, *expected = compiled(case)(
            np.take(x, copies, cut), scale, bias, np.take(g, copies, cut), None
        )
        close(np.take(y, copies, cut), of_copies)
        summed = np.zeros_like(dx)
        np.add.at(np.moveaxis(summed, cut, 0), copies, np.moveaxis(dx_of_copies, cut, 0))
        close(dx, summed)
        # Elements without weight have no cotangent here, so they add nothing to these.
        jax.tree.map(close, others, expected)

    equal()


@pytest.mark.parametrize("case", rows(CASES, LAST), ids=str)
@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30])
def test_padding_is_nothing(case, padding):
    cut = case.layout.cut
    x, scale, bias, g = map(np.asarray, case.arrays())
    more = [(0, 2 if i == cut else 0) for i in range(x.ndim)]
    number = x.shape[cut]
    padded = np.pad(x, more, constant_values=padding)
    mask = along(case, np.arange(number + 2) < number)
    y, dx, *others = compiled(case)(padded, scale, bias, np.pad(g, more), mask)
    expected_y, expected_dx, *expected = compiled(case)(x, scale, bias, g, None)
    close(np.take(y, range(number), cut), expected_y)
    close(np.take(dx, range(number), cut), expected_dx)
    assert not np.take(dx, range(number, number + 2), cut).any()
    jax.tree.map(close, others, expected)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_padding_is_nothing_to_the_statistics(rng, kind):
    """Row 39: padding with zeros shifts the statistics, unless it is masked."""
    train = jax.jit(functools.partial(batch_norm, train=True, estimator=ema(0.99)))
    x = rng.normal(3, 2, (5, 4, 3)).astype(np.float32)
    state = ema(0.99).init((3,))
    _, expected = train(x, state)
    lengths = np.arange(7) < 4
    for padding in (0, np.nan):
        padded = np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=padding)
        _, masked = train(padded, state, weights=lengths[None, :, None].astype(kind))
        chex.assert_trees_all_close(masked, expected, rtol=1e-5)
        _, shifted = train(padded, state)
        assert not np.allclose(shifted.mean, expected.mean, rtol=0.1)
