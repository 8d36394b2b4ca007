"""What the sources say of moments and of running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm import Moments, Statistics, ema
from tests.sources.compiled import measure

PRINTED = """
53 9 67 30 69  79 25 7 80 16  77 67 60 30 85  45 14 92 12 67  32 98 70 98 48
45 89 73 73 80  35 67 21 77 63  24 33 56 85 17  88 43 58 82 59  53 23 34 4 33
"""


def test_row_59_the_moments_of_the_printed_array():
    integers = jnp.array([int(each) for each in PRINTED.split()]).reshape(10, 5)
    x = integers.astype(jnp.float32)
    moments = measure(x, axes=0)
    np.testing.assert_allclose(moments.mean, [53.1, 46.8, 53.8, 57.1, 53.7], rtol=1e-6)
    expected = [421.09, 896.96, 598.36, 1056.69, 542.61]
    np.testing.assert_allclose(moments.var, expected, rtol=1e-6)
    both = measure(x, axes=(0, 1))
    assert float(both.mean) == pytest.approx(52.9, rel=1e-6)
    assert float(both.var) == pytest.approx(714.41, rel=1e-6)
    with pytest.raises(TypeError, match=r"x\.astype\(jnp\.float32\)"):
        measure(integers, axes=0)


def average(decay, start, values):
    """The running mean after each of the values, from Statistics that start there."""
    update = jax.jit(ema(decay).update)
    state, seen = Statistics(jnp.array(start), jnp.array(0.0)), []
    for value in values:
        state = update(state, Moments(*np.float32([1, value, 0])))
        seen.append(float(state.mean))
    return seen


def test_row_60_the_shadow_follows_and_more_steadily_with_a_larger_decay(rng):
    values = rng.normal(size=200)
    shadow, expected = 3.0, []
    for value in values:
        shadow = 0.99 * shadow + (1 - 0.99) * value
        expected.append(shadow)
    np.testing.assert_allclose(average(0.99, 3.0, values), expected, rtol=1e-4, atol=1e-5)
    unsteadiness = [
        np.std(np.diff(average(decay, 0.0, values))) for decay in (0.9, 0.99, 0.999)
    ]
    assert unsteadiness[0] > 5 * unsteadiness[1] > 25 * unsteadiness[2]


def test_row_63_the_printed_moving_averages():
    assert average(0.9, 1.0, [2.0, 3.0, 4.0]) == pytest.approx([1.1, 1.29, 1.561], rel=1e-6)
