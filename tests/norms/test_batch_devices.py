"""Batch norm on several devices: one batch in all, or one per group of devices."""

import functools

import chex
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxnorm import batch_norm, ema

START = ema(0.9).init((3,))
train = jax.jit(functools.partial(batch_norm, train=True, estimator=ema(0.9)))


@pytest.mark.parametrize("check", [True, False])
def test_shards_return_the_statistics_of_the_whole_batch(rng, check):
    """4 + 1 valid rows: a mean of means would give the one as much weight as the four."""
    x = rng.normal(2, 3, (8, 3)).astype(np.float32)
    weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)[:, None]
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = PartitionSpec("devices"), PartitionSpec()
    sharded = jax.jit(
        jax.shard_map(
            lambda x, w, s: batch_norm(
                x, s, train=True, estimator=ema(0.99), weights=w, axis_name="devices"
            ),
            mesh=mesh,
            in_specs=(split, split, whole),
            out_specs=(split, whole),
            check_vma=check,
        )
    )
    expected = batch_norm(x, START, train=True, estimator=ema(0.99), weights=weights)
    chex.assert_trees_all_close(sharded(x, weights, START), expected, rtol=1e-5, atol=1e-5)


def test_groups_of_devices_are_batches_of_their_own(rng):
    x = rng.normal(size=(4, 5, 3)).astype(np.float32)
    groups = [[0, 1], [2, 3]]
    mapped = jax.pmap(
        lambda x: batch_norm(
            x,
            START,
            train=True,
            estimator=ema(0.99),
            axis_name="devices",
            axis_index_groups=groups,
        ),
        axis_name="devices",
    )
    y, statistics = mapped(x)
    for group in groups:
        together, expected = batch_norm(
            np.concatenate(x[group]), START, train=True, estimator=ema(0.99)
        )
        np.testing.assert_allclose(np.concatenate(y[np.array(group)]), together, atol=1e-5)
        for device in group:
            got = jax.tree.map(lambda each, device=device: each[device], statistics)
            chex.assert_trees_all_close(got, expected, rtol=1e-5)


def test_a_sharded_batch_under_jit_is_one_batch(rng):
    x = rng.normal(size=(16, 3)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("devices")))
    chex.assert_trees_all_close(train(placed, START), train(x, START), rtol=1e-5, atol=1e-6)


def test_lone_examples_are_a_batch_under_vmap(rng):
    x = rng.normal(size=(6, 3)).astype(np.float32)
    mapped = jax.vmap(
        lambda x: batch_norm(x, START, train=True, estimator=ema(0.99), axis_name="batch"),
        axis_name="batch",
    )
    y, statistics = mapped(x)
    expected, expected_statistics = batch_norm(x, START, train=True, estimator=ema(0.99))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(statistics.mean[0], expected_statistics.mean, atol=1e-6)
