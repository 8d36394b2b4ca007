"""The argument promote_dtype, which may be a custom function."""

import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm.nnx as jx
from tests.modules.apis import NORMS, normal

pytestmark = pytest.mark.usefixtures("lenient")
COARSE = jnp.bfloat16
X = normal(4, 3, 6, dtype=COARSE)


def halved(arrays, *, dtype):
    """Rounds the statistics and parameters to 16 bits."""
    x, *others = arrays
    given = [None if each is None else each.astype(dtype or COARSE) for each in others]
    return x, *given


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("promote", [halved, lambda arrays, *, dtype: arrays])
def test_a_function_of_the_user_gets_the_arrays_of_flax_and_gives_its_dtype(norm, promote):
    seen = []

    def spy(arrays, *, dtype):
        seen.append([each.dtype for each in arrays])
        return promote(arrays, dtype=dtype)

    groups = {"num_groups": 3} if norm == "GroupNorm" else {}
    ours, theirs = (
        getattr(each, norm)(6, promote_dtype=spy, rngs=nnx.Rngs(0), **groups)
        for each in (jx, nnx)
    )
    assert ours(X).dtype == theirs(X).dtype
    assert seen[0] == seen[1]
