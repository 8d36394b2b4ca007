"""Mapped axes: parts that are split along a mapped axis are normalised together."""

import chex
import jax
import pytest

from tests.modules.apis import each_api, most_different_norms, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 6, 3)
# The axis of x to split: batch, spatial or feature axis.
SPLIT = {"BatchNorm": 0, "InstanceNorm": 1, "GroupNorm": 1, "LayerNorm": 2, "RMSNorm": 2}


@each_api
@most_different_norms
def test_the_parts_along_a_mapped_axis_are_normalised_as_one(api, norm):
    axis = SPLIT[norm]
    whole = X.swapaxes(1, 2) if axis == 2 else X
    arguments = {"num_groups": 3} if norm == "GroupNorm" else {}
    expected, _ = api.pair(norm, whole, **arguments)
    expected = expected.apply(expected.variables, whole, **training(norm))

    parts = whole.reshape(*whole.shape[:axis], 2, -1, *whole.shape[axis + 1 :])
    features = parts.shape[-1]
    norm_of_parts = getattr(api.ours, norm)
    model = api.model(
        norm_of_parts, parts.take(0, axis), features, axis_name="parts", **arguments
    )
    synchronized = jax.vmap(
        lambda x: model.apply(model.variables, x, **training(norm)),
        in_axes=axis,
        out_axes=(axis, None),
        axis_name="parts",
    )
    y, statistics = jax.jit(synchronized)(parts)
    chex.assert_trees_all_close(y.reshape(whole.shape), expected[0], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(statistics, expected[1], rtol=1e-5, atol=1e-5)
