"""Errors for bad input give its values and a fix, and are the same in both APIs."""

import jax.numpy as jnp
import pytest

from tests.modules.apis import NNX, each_api, each_norm, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)
THREE = {"num_groups": 3}
# num_features for other feature axes; with a wrong number, NNX would raise earlier.
FEATURES = {(0, 2): 24, (1, 2): 18}


@each_api
@pytest.mark.parametrize(
    ("norm", "arguments", "said"),
    [
        ("GroupNorm", {"num_groups": 4}, r"num_groups=4 .* 6 channels; .*\[1, 2, 3, 6\]"),
        ("GroupNorm", {}, r"num_groups=32 .* 6 channels; .*\[1, 2, 3, 6\]"),
        ("GroupNorm", {"num_groups": None, "group_size": 5}, "group_size=5 .* 6 channels"),
        (
            "GroupNorm",
            {"num_groups": 3, "group_size": 2},
            "exactly one .* None for the other",
        ),
        ("GroupNorm", {"num_groups": None}, "exactly one .* give one, and None"),
        ("GroupNorm", THREE | {"reduction_axes": (1, 1, 2)}, "name each axis once"),
        ("GroupNorm", THREE | {"reduction_axes": (-1, 5)}, "axis 5 .* from -3 to 2"),
        ("InstanceNorm", {"feature_axes": (0, 2)}, "includes the first axis"),
        ("InstanceNorm", {"feature_axes": (2, -1)}, "name each axis once"),
        ("LayerNorm", {"feature_axes": (2, -1)}, "name each axis once"),
        ("LayerNorm", {"reduction_axes": (1, 1)}, "name each axis once"),
        ("LayerNorm", {"reduction_axes": 3}, "axis 3 .* from -3 to 2"),
        ("BatchNorm", {"axis": (-1, 2)}, "name each axis once"),
        ("BatchNorm", {"axis": 7}, "axis 7 .* from -3 to 2"),
        ("BatchNorm", {"momentum": 1.5}, r"decay=1.5.* \[0, 1\]"),
        ("BatchNorm", {"epsilon": -1.0}, "epsilon=-1.0"),
        ("BatchNorm", {"axis_index_groups": [[0, 1]]}, "axis_index_groups=.*axis_name="),
    ],
)
def test_arguments_that_do_not_fit_are_refused(api, norm, arguments, said):
    features = FEATURES.get(arguments.get("feature_axes"), 6)
    with pytest.raises(ValueError, match=said):
        api.model(getattr(api.ours, norm), X, features, **arguments)(X, **training(norm))


@each_api
@each_norm
def test_a_mask_that_does_not_broadcast_is_refused(api, norm):
    arguments = THREE if norm == "GroupNorm" else {}
    ours, _ = api.pair(norm, X, **arguments)
    with pytest.raises(ValueError, match=r"\(4, 3\).*does not broadcast.*\(4, 3, 6\)"):
        ours(X, mask=jnp.ones((4, 3), bool), **training(norm))


@each_api
@each_norm
def test_complex_numbers_are_refused(api, norm):
    arguments = THREE if norm == "GroupNorm" else {}
    x = X.astype(jnp.complex64)
    with pytest.raises(TypeError, match=r"complex64.*floating dtype is expected"):
        api.model(getattr(api.ours, norm), x, 6, **arguments)(x)


@each_norm
def test_other_features_than_those_an_nnx_norm_was_made_for_are_refused(norm):
    arguments = THREE if norm == "GroupNorm" else {}
    ours, _ = NNX.pair(norm, X, **arguments)
    with pytest.raises(ValueError, match=r"\(4, 3, 5\).*num_features=6; .*num_features=5"):
        ours(X[..., :5])
