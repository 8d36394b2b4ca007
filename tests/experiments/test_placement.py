"""The verdicts at their thresholds, and the drawing of row 36's axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnorm.linen as jn
from experiments.studies import placement
from experiments.studies.placement.axes_diagram import (
    CHANNELS,
    GROUPS,
    POSITIONS,
    SAMPLES,
    alike,
)


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        ("batch_norm", SAMPLES * POSITIONS),
        ("layer_norm", CHANNELS * POSITIONS),
        ("instance_norm", POSITIONS),
        ("group_norm", CHANNELS // GROUPS * POSITIONS),
    ],
)
def test_as_many_cells_are_coloured_as_row_36_counts(norm, count):
    assert alike(norm).sum() == count


@pytest.mark.slow  # a derivative is compiled for each
@pytest.mark.parametrize("norm", placement.NORMS)
def test_coloured_cells_are_those_the_norm_depends_on(rng, norm):
    """∂y/∂x of the last channel of the first sample is nonzero there and nowhere else."""
    makes = placement.NORMS | {"group_norm": lambda train: jn.GroupNorm(num_groups=GROUPS)}
    model = makes[norm](True)
    x = jnp.asarray(rng.normal(size=(SAMPLES, POSITIONS, 1, CHANNELS)), jnp.float32)
    variables = model.init(jax.random.key(0), x)

    def output(x):
        y, _ = model.apply(variables, x, mutable=["batch_stats"])
        return y[0, 1, 0, -1]

    np.testing.assert_array_equal(
        np.asarray(jax.grad(output)(x))[:, :, 0] != 0, alike(norm)
    )


def history(**accuracies):
    """Five seeds, in percent; networks not named have 95."""
    names = (*placement.DENSE, *placement.CONV)
    given = {name.replace("_", " "): each for name, each in accuracies.items()}
    values = {name: np.broadcast_to(given.get(name, 95.0), 5) for name in names}
    return {name: {"accuracy": each[:, None] / 100} for name, each in values.items()}


SPREAD = np.array([0.1, -0.1, 0.2, 0.0, -0.2])


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ({}, "PASS PASS PASS FAIL FAIL"),
        ({"relu, BN after": 96 + SPREAD}, "PASS PASS PASS PASS FAIL"),
        ({"sigmoid, BN after": 96 + SPREAD}, "PASS PASS PASS FAIL PASS"),
        ({"relu, BN before": 89.9}, "FAIL PASS PASS PASS FAIL"),
        ({"relu, BN before": np.nan}, "FAIL PASS PASS OPEN FAIL"),
        ({"group norm": 89.9}, "PASS FAIL PASS FAIL FAIL"),
        ({"batch norm": 89.9}, "PASS FAIL FAIL FAIL FAIL"),
    ],
)
def test_verdicts_at_their_thresholds(accuracies, words):
    found = placement.verdicts(history(**accuracies))
    assert [each.word for each in found] == words.split()
