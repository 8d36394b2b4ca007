import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnorm._core.axes import canonical_axes, complement, expand, sizes_of


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(-n, n - 1)))
    )
)
def test_axes_and_complement_share_out_all_axes(drawn):
    ndim, axes = drawn
    if len({each % ndim for each in axes}) < len(axes):
        with pytest.raises(ValueError, match="more than once"):
            canonical_axes(tuple(axes), ndim)
        return
    canonical = canonical_axes(tuple(axes), ndim)
    assert canonical == tuple(sorted(each % ndim for each in axes))
    assert sorted(canonical + complement(canonical, ndim)) == list(range(ndim))


@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_an_axis_out_of_range_names_the_range(axis):
    with pytest.raises(ValueError, match="give axes from -2 to 1"):
        canonical_axes(axis, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("axis", [1.5, None, "last", (0, 1.0)])
def test_an_axis_that_is_no_integer_is_refused(axis):
    with pytest.raises(TypeError, match="a tuple of integers, is expected"):
        canonical_axes(axis, 2)


def test_expand_puts_an_array_back_where_it_came_from(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    axes = (1, 3)
    assert sizes_of(x.shape, axes) == (3, 5)
    back = expand(x.sum((0, 2)), axes, 4)
    np.testing.assert_array_equal(back, x.sum((0, 2), keepdims=True))
