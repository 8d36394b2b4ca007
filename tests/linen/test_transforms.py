"""The Linen norms agree with flax's under its lifted transforms."""

from types import ModuleType
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxnorm.linen as jn
from tests.modules.apis import KEY, normal

pytestmark = pytest.mark.usefixtures("lenient")
X = normal(4, 3, 6)


class Norms(nn.Module):
    """All five norms side by side, without flax's fast variance, which can cancel."""

    library: ModuleType

    @nn.compact
    def __call__(self, x: Any, _: None = None) -> tuple[Any, None]:
        library, exact = self.library, {"use_fast_variance": False}
        norms = (
            library.BatchNorm(use_running_average=False, momentum=0.5, **exact),
            library.LayerNorm(**exact),
            library.RMSNorm(**exact),
            library.GroupNorm(num_groups=3, **exact),
            library.InstanceNorm(**exact),
        )
        return sum(norm(x) for norm in norms), None


def scanned(block):
    return nn.scan(
        nn.remat(block),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=2,
    )


def mapped(block):
    """Applies one model to each of two parts of x, with separate parameters."""
    return nn.vmap(
        block,
        in_axes=(1, None),
        out_axes=1,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
    )


@pytest.mark.parametrize(
    ("transform", "x"),
    [
        pytest.param(scanned, X, id="scan of remat"),
        pytest.param(mapped, normal(4, 2, 3, 6), id="vmap", marks=pytest.mark.slow),
    ],
)
def test_does_under_a_lifted_transform_what_flax_does(transform, x):
    def results(library):
        model = transform(Norms)(library)
        variables = model.init(KEY, x, None)

        @jax.jit
        def gradients(params):
            def loss(params):
                given = variables | {"params": params}
                (y, _), updates = model.apply(given, x, None, mutable=["batch_stats"])
                return jnp.sum(jnp.sin(y)), updates

            return jax.value_and_grad(loss, has_aux=True)(params)

        return variables, gradients(variables["params"])

    ours, theirs = results(jn), results(nn)
    chex.assert_trees_all_equal(ours[0], theirs[0])
    chex.assert_trees_all_close(ours[1], theirs[1], rtol=2e-4, atol=2e-4)


def test_statistics_are_carried_by_a_scan_of_steps():
    """Updates keep their dtype, unlike in flax, where it may change."""
    model = jn.BatchNorm(
        train=True, param_dtype=jnp.bfloat16, force_float32_reductions=False
    )
    variables = model.init(KEY, X)

    def step(statistics, x):
        y, updates = model.apply(
            variables | {"batch_stats": statistics}, x, mutable=["batch_stats"]
        )
        return updates["batch_stats"], y

    last, _ = jax.lax.scan(step, variables["batch_stats"], jnp.stack([X, X + 1]))
    assert last["mean"].dtype == jnp.bfloat16


def test_eval_shape_makes_the_variables_without_computing():
    shapes = jax.eval_shape(Norms(jn).init, KEY, X)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, Norms(nn).init(KEY, X))
