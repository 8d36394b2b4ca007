"""The central property: the modules agree with flax.

Run with `-n0 -s --hypothesis-show-statistics` to see the number of cases.
"""

import chex
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.modules.apis import NORMS, each_api, each_norm
from tests.modules.drawing import A_SHAPE, cases
from tests.support.cases import rows

pytestmark = pytest.mark.usefixtures("lenient")


def check(api, norm, case):
    """Checks that variables, outputs, gradients and new statistics equal flax's."""
    ours, theirs = api.pair(norm, case.x, case.num_features, **case.arguments)
    chex.assert_trees_all_equal(ours.variables, theirs.variables)
    chex.assert_trees_all_equal_dtypes(ours.variables, theirs.variables)

    variables = theirs.variables | {
        "batch_stats": seasoned(theirs.variables["batch_stats"])
    }
    ours, theirs = (run(each.apply, variables, case) for each in (ours, theirs))
    (_, (y, statistics)), _ = ours
    (_, (flax_y, _)), _ = theirs
    assert y.dtype == flax_y.dtype
    # flax's may become float32 when updated, so that a scan could not carry them.
    chex.assert_trees_all_equal_dtypes(statistics, variables["batch_stats"])
    tolerance = 3e-2 if case.coarse else 2e-4
    chex.assert_trees_all_close(wide(ours), wide(theirs), rtol=tolerance, atol=tolerance)


def seasoned(statistics):
    """Makes running statistics differ between features, and from 0 and 1."""

    def season(each):
        place = jnp.arange(each.size, dtype=jnp.float32).reshape(each.shape)
        return (each + 0.5 + 0.4 * jnp.cos(place)).astype(each.dtype)

    return jax.tree.map(season, statistics)


def run(apply, variables, case):
    """Returns ((loss, (y, statistics)), gradients with respect to parameters and x)."""

    def loss(params, x):
        y, statistics = apply(variables | {"params": params}, x, **case.call)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, statistics)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        variables["params"], case.x
    )


def wide(tree):
    return jax.tree.map(lambda each: each.astype(jnp.float32), tree)


@each_api
@pytest.mark.parametrize("norm", rows(NORMS, ["BatchNorm"]))
@settings(max_examples=3)
@given(st.data())
def test_agrees_with_flax(api, norm, data):
    check(api, norm, data.draw(cases(api, norm, A_SHAPE)))


@pytest.mark.slow
@each_api
@each_norm
@settings(max_examples=15)  # each takes seconds to compile
@given(st.data())
def test_agrees_with_flax_in_many_cases(api, norm, data):
    check(api, norm, data.draw(cases(api, norm)))
