"""Initialisation outside of mapped axes, without a batch."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm.linen as jn
from tests.modules.apis import KEY, NORMS, normal
from tests.support.cases import rows

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(6, 4, 3)


@pytest.mark.slow
def test_initialising_needs_no_mapped_axis():
    module = jn.BatchNorm(train=True, axis_name="batch")
    variables = module.init(KEY, X[0, 0])  # a single example
    y, updates = jax.vmap(
        lambda x: module.apply(variables, x, mutable=["batch_stats"]),
        axis_name="batch",
        out_axes=(0, None),
    )(X[:, 0])
    expected, same = jn.BatchNorm(train=True).apply(
        variables, X[:, 0], mutable=["batch_stats"]
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)
    chex.assert_trees_all_close(updates, same, rtol=1e-5)


def test_initialising_on_a_batch_needs_no_mapped_axis_nor_its_groups():
    module = jn.BatchNorm(train=True, axis_name="batch", axis_index_groups=[[0, 1], [2, 3]])
    variables = module.init(KEY, X[0])
    y = jax.pmap(
        lambda x: module.apply(variables, x, mutable=["batch_stats"])[0], axis_name="batch"
    )(X[:4])
    expected, _ = jn.BatchNorm(train=True).apply(
        variables, jnp.concatenate(X[:2]), mutable=["batch_stats"]
    )
    np.testing.assert_allclose(jnp.concatenate(y[:2]), expected, atol=1e-5)


@pytest.mark.parametrize("norm", rows(NORMS, ["BatchNorm", "GroupNorm"]))
def test_no_norm_needs_its_mapped_axis_to_be_initialised(norm):
    arguments = {"num_groups": 1} if norm == "GroupNorm" else {}
    call = {"train": True} if norm == "BatchNorm" else {}
    module = getattr(jn, norm)(axis_name="batch", **arguments)
    variables = module.init(KEY, X, **call)
    expected = getattr(jn, norm)(**arguments).init(KEY, X, **call)
    chex.assert_trees_all_equal(variables, expected)


def test_an_empty_batch_initialises_what_any_batch_does():
    """As with flax, which is often initialised with `jnp.empty((0, …))`."""
    module = jn.BatchNorm(train=True)
    y, variables = module.init_with_output(KEY, X[:0])
    assert y.shape == (0, 4, 3)
    chex.assert_trees_all_equal(variables, module.init(KEY, X))
    with pytest.raises(ValueError, match="skip the empty batch"):
        module.apply(variables, X[:0], mutable=["batch_stats"])


def test_parameters_in_a_model_have_the_names_of_flax():
    class Model(nn.Module):
        library: object

        @nn.compact
        def __call__(self, x):
            for norm in NORMS:
                arguments = {"num_groups": 5} if norm == "GroupNorm" else {}
                if norm == "BatchNorm":
                    arguments = {"use_running_average": True}
                for _ in range(2):
                    x = getattr(self.library, norm)(**arguments)(nn.Dense(5)(x))
            return x

    ours, theirs = (jax.eval_shape(Model(each).init, KEY, X) for each in (jn, nn))
    assert "BatchNorm_1" in ours["batch_stats"]
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)
