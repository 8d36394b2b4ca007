"""Old argument names give the same result, and a warning with the new name."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm
from jaxnorm import Moments, Statistics

X = jax.random.normal(jax.random.key(0), (4, 3, 2))
MOMENTS = Moments(jnp.full(2, 12.0), jnp.zeros(2), jnp.ones(2))
STATISTICS = Statistics(jnp.zeros(3), jnp.ones(3))
SUMMARY = jaxnorm.summarize(X, feature_axes=1)

# The function; its arguments under their new names; and the old names of some.
STATELESS = {"feature_axes": "axis", "reduction_axes": "reduced"}
RENAMED = {
    jaxnorm.layer_norm: ((X,), {"feature_axes": 1, "reduction_axes": (1, 2)}, STATELESS),
    jaxnorm.rms_norm: ((X,), {"feature_axes": 1, "reduction_axes": (1, 2)}, STATELESS),
    jaxnorm.group_norm: (
        (X,),
        {"num_groups": 1, "feature_axes": 1, "reduction_axes": 2},
        STATELESS,
    ),
    jaxnorm.instance_norm: ((X,), {"feature_axes": 1, "reduction_axes": 2}, STATELESS),
    jaxnorm.batch_norm: (
        (X, STATISTICS),
        {"train": True, "update": False, "feature_axes": 1},
        {"feature_axes": "axis"},
    ),
    jaxnorm.batch_renorm: (
        (X, STATISTICS),
        {"train": True, "update": False, "feature_axes": 1},
        {"feature_axes": "axis"},
    ),
    jaxnorm.normalize: (
        (X, MOMENTS),
        {"reduction_axes": (0, 1), "feature_axes": 2, "epsilon": 0.0},
        {"reduction_axes": "reduced", "feature_axes": "features"},
    ),
    jaxnorm.measure: ((X,), {"reduction_axes": 1}, {"reduction_axes": "axes"}),
    jaxnorm.measure_about_zero: ((X,), {"reduction_axes": 1}, {"reduction_axes": "axes"}),
    jaxnorm.measure_groups: (
        (X,),
        {"reduction_axes": 1, "feature_axes": 2, "num_groups": 1},
        {"reduction_axes": "axes", "feature_axes": "features"},
    ),
    jaxnorm.summarize: ((X,), {"feature_axes": 1}, {"feature_axes": "axis"}),
    jaxnorm.fit: (([X],), {"feature_axes": 1, "progress": False}, {"feature_axes": "axis"}),
    jaxnorm.standardize: ((X, SUMMARY), {"feature_axes": 1}, {"feature_axes": "axis"}),
    jaxnorm.mean_normalize: ((X, SUMMARY), {"feature_axes": 1}, {"feature_axes": "axis"}),
    jaxnorm.min_max: ((X, SUMMARY), {"feature_axes": 1}, {"feature_axes": "axis"}),
}
OLD = [(function, new) for function, (_, _, names) in RENAMED.items() for new in names]


@pytest.mark.parametrize(
    ("function", "new"), OLD, ids=[f"{each.__name__}-{new}" for each, new in OLD]
)
def test_an_old_name_gives_the_same_and_warns(function, new):
    args, kwargs, names = RENAMED[function]
    old = names[new]
    before = {old if name == new else name: value for name, value in kwargs.items()}
    with pytest.warns(DeprecationWarning, match=rf"{old}=.* is now {new}=") as warned:
        found = function(*args, **before)
    # Blames the caller. (In tests, jaxtyping checks arguments in a frame between.)
    package = str(Path(jaxnorm.__file__).parent)
    assert not warned[0].filename.startswith(package)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(function(*args, **kwargs)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="got axis= and feature_axes="):
        jaxnorm.layer_norm(X, axis=1, feature_axes=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Accumulated", "AccumulateState"),
        ("Averages", "CountedStatistics"),
        ("Collected", "CollectState"),
        ("Guarded", "SkipNonfiniteState"),
    ],
)
def test_an_old_name_of_a_state_is_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=f"it is now jaxnorm.{new}"):
        assert getattr(jaxnorm, old) is getattr(jaxnorm, new)
    assert old not in dir(jaxnorm)
