"""Groups without spatial axes, in the tiles of a TPU."""

import functools

import jax
import numpy as np
import pytest

from jaxnorm import group_norm
from jaxnorm.norms import _grouped_rows as grouped_rows
from tests.support import oracle
from tests.support.cases import rows


@pytest.fixture
def in_tiles(monkeypatch):
    """Runs the computation of a TPU on a CPU."""
    monkeypatch.setattr(
        grouped_rows, "_normalize_by_platform", grouped_rows._normalize_in_tiles
    )


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("weighted", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("shape", rows([(16, 512), (2, 8, 512)], [(2, 8, 512)]))
@pytest.mark.parametrize("groups", rows([4, 2], [2]))  # groups of one tile, and of two
def test_they_are_what_the_oracle_has(groups, shape, weighted, rng):
    x, g = (rng.normal(3, 2, shape).astype(np.float32) for _ in range(2))
    scale, bias = (rng.normal(size=shape[-1:]).astype(np.float32) for _ in range(2))
    mask = rng.random(shape) < 0.8 if weighted else None
    options = {"epsilon": 1e-3, "weights": mask}

    @jax.jit
    def both(x, scale, bias, g):
        y, vjp = jax.vjp(
            functools.partial(group_norm, num_groups=groups, reduction_axes=(), **options),
            x,
            scale,
            bias,
        )
        return y, *vjp(g)

    exact = oracle.group_norm(
        x, scale, bias, g, features=(x.ndim - 1,), groups=groups, reduced=(), **options
    )
    for found, expected in zip(both(x, scale, bias, g), exact[:4], strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("shape", [(16, 512), (3, 8)])
def test_scale_and_bias_may_be_of_each_sample(shape, rng):
    x, g, scale, bias = rng.normal(1, 2, (4, *shape)).astype(np.float32)

    @jax.jit
    def both(x, scale, bias, g):
        y, vjp = jax.vjp(functools.partial(group_norm, num_groups=2), x, scale, bias)
        return y, *vjp(g)

    exact = oracle.group_norm(
        x,
        scale,
        bias,
        g,
        reduced=(),
        features=(1,),
        groups=2,
        epsilon=1e-6,
        weights=None,
    )
    for found, expected in zip(both(x, scale, bias, g), exact[:4], strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * size)
