"""Ghost batches: parts of a batch, each normalised by itself."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnorm import batch_norm, ema
from jaxnorm.norms._ghosts import ghost_sizes
from tests.support.cases import rows

START = ema(0.9).init((3,))
SCALE, BIAS = jnp.array([1.0, 2.0, -0.5]), jnp.array([0.0, 1.0, 3.0])
train = functools.partial(batch_norm, train=True, estimator=ema(0.9))


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(train, **options))


@given(st.integers(1, 30), st.integers(1, 12))
def test_no_ghost_is_smaller_than_its_size_and_sizes_differ_by_one(samples, size):
    counted = ghost_sizes(samples, size)
    sizes = [each for number, each in counted for _ in range(number)]
    assert sum(sizes) == samples
    assert len(sizes) == max(1, samples // size)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("axis", "order"), [(-1, (0, 1, 2)), (0, (2, 0, 1))])
@pytest.mark.parametrize(
    "weighted", rows(["not", "by sample", "by position"], ["by sample"])
)
def test_each_is_normalised_by_itself_and_the_statistics_are_of_all(
    rng, axis, order, weighted
):
    """Eleven samples in ghosts of four: one of six and one of five."""
    x = rng.normal(2, 3, (11, 4, 3)).astype(np.float32)
    shape = {"by sample": (11, 1, 1), "by position": (1, 4, 1)}.get(weighted)
    weights = None if shape is None else rng.uniform(size=shape).astype(np.float32)
    parts = [slice(6), slice(6, None)]

    def part_of(array, part):
        whole = array is None or array.shape[0] == 1
        return array if whole else array[part]

    def moved(array):
        return None if array is None else array.transpose(order)

    y, statistics = compiled(ghost_size=4, feature_axes=axis)(
        moved(x), START, SCALE, BIAS, weights=moved(weights)
    )
    alone = [
        compiled()(x[part], START, SCALE, BIAS, weights=part_of(weights, part))[0]
        for part in parts
    ]
    chex.assert_trees_all_close(y, moved(np.concatenate(alone)), rtol=1e-5, atol=1e-5)
    _, expected = train(x, START, SCALE, BIAS, weights=weights)
    chex.assert_trees_all_close(statistics, expected, rtol=1e-5)


def test_evaluation_and_a_single_ghost_have_none(rng):
    x = rng.normal(2, 3, (6, 3)).astype(np.float32)
    evaluated, _ = batch_norm(x, START, train=False, ghost_size=2)
    np.testing.assert_array_equal(evaluated, batch_norm(x, START, train=False)[0])
    for size in (6, 99):
        chex.assert_trees_all_close(
            compiled(ghost_size=size)(x, START), train(x, START), rtol=1e-6, atol=1e-6
        )


def test_gradients_are_those_of_the_parts(rng):
    x, g = rng.normal(2, 3, (2, 7, 3)).astype(np.float32)

    def loss(x, scale, **options):
        return jnp.vdot(train(x, START, scale, BIAS, **options)[0], g)

    @jax.jit
    def by_parts(x, scale):
        alone = [train(part, START, scale, BIAS)[0] for part in (x[:4], x[4:])]
        return jnp.vdot(jnp.concatenate(alone), g)

    got = jax.jit(jax.grad(functools.partial(loss, ghost_size=3), (0, 1)))(x, SCALE)
    expected = jax.grad(by_parts, (0, 1))(x, SCALE)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)


def test_devices_have_ghosts_of_their_own_and_common_statistics(rng):
    x = rng.normal(2, 3, (2, 6, 3)).astype(np.float32)
    mapped = jax.vmap(
        lambda x: train(x, START, ghost_size=3, axis_name="devices"), axis_name="devices"
    )
    y, statistics = jax.jit(mapped)(x)
    expected, _ = compiled(ghost_size=3)(x.reshape(12, 3), START)
    np.testing.assert_allclose(y.reshape(12, 3), expected, rtol=1e-5, atol=1e-5)
    _, whole = train(x.reshape(12, 3), START)
    for device in range(2):
        got = jax.tree.map(lambda each, device=device: each[device], statistics)
        chex.assert_trees_all_close(got, whole, rtol=1e-5)


@pytest.mark.parametrize("size", [3, 8])
def test_an_explicit_mesh_changes_nothing(rng, size):
    """Whether each ghost lies on one device or on several."""
    x = jnp.asarray(rng.normal(2, 3, (16, 3)), jnp.float32)

    def loss(x):
        y, statistics = train(x, START, ghost_size=size)
        return jnp.sum(jnp.sin(y)), statistics

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    expected = gradient(x)
    with jax.set_mesh(jax.make_mesh((4,), ("devices",))):
        sharded = jax.device_put(x, jax.sharding.PartitionSpec("devices"))
        found = gradient(sharded)
        assert found[0].sharding.spec[0] == "devices"
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_ghost_without_weight_gives_the_bias(rng):
    x = rng.normal(2, 3, (6, 3)).astype(np.float32)
    weights = np.arange(6)[:, None] < 3
    x[3:] = np.nan
    y, statistics = compiled(ghost_size=3)(x, START, SCALE, BIAS, weights=weights)
    np.testing.assert_array_equal(y[3:], jnp.broadcast_to(BIAS, (3, 3)))
    _, expected = train(x[:3], START)
    chex.assert_trees_all_close(statistics, expected, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (1.5, TypeError)])
def test_a_size_that_is_none_is_refused_also_in_evaluation(size, error):
    with pytest.raises(error, match=f"ghost_size={size}, but"):
        batch_norm(jnp.ones((4, 3)), START, train=False, ghost_size=size)


def test_a_lone_example_has_no_ghosts():
    with pytest.raises(ValueError, match="no axis of samples to split"):
        jax.vmap(
            lambda x: train(x, START, ghost_size=2, axis_name="batch"), axis_name="batch"
        )(jnp.ones((4, 3)))


@pytest.mark.parametrize("size", [4, 5])  # ghosts of one size, and of two
def test_a_scale_of_each_sample_goes_with_it(rng, size):
    x = rng.normal(2, 3, (12, 4, 3)).astype(np.float32)
    scale, bias = rng.normal(1, 0.5, (2, 12, 1, 3)).astype(np.float32)
    plain, expected = compiled(ghost_size=size)(x, START)
    y, statistics = compiled(ghost_size=size)(x, START, scale, bias)
    chex.assert_trees_all_close(y, scale * plain + bias, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(statistics, expected)
