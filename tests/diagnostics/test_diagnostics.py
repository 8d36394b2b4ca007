"""The parts of diagnosing: padding, saturation, and the thresholds of the faults."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnorm.diagnostics.activations import RANGES, range_of
from jaxnorm.diagnostics.faults import diagnoses_of, notes_of
from jaxnorm.diagnostics.gap import differences, gap_of
from jaxnorm.diagnostics.metrics import NormMetrics
from jaxnorm.diagnostics.padding import padded_share
from jaxnorm.diagnostics.settings import Setting

TRAIN = Setting(
    path="norm",
    place=0,
    kind="BatchNorm",
    features=(1,),
    reduced=(0,),
    groups=None,
    about_zero=False,
    epsilon=1e-5,
    trains=True,
    decay=0.99,
    plain=True,
    weighted=False,
    conditional=False,
    ghost_size=None,
    corrected=False,
    affine=True,
)
SINGLE, MISMATCH = "one sample per mean", "statistics mismatch"
SLOW = pytest.mark.slow
ZEROS, ONES = np.zeros(10), np.ones(10)
WELL = NormMetrics(
    name="norm",
    path="norm",
    train=TRAIN,
    eval=dataclasses.replace(TRAIN, trains=False),
    count=32.0,
    samples=1024.0,
    batch_mean=ONES,
    batch_var=2 * ONES,
    distance=ZEROS,
    log_ratio=ZEROS,
    start=0.5,
    unexplained=1.0,
    running_mean=ONES,
    running_var=2 * ONES,
    updates=None,
    dead=ZEROS,
    constant=ZEROS,
    small_scale=ZEROS > 0,
    saturated=0.5 * ONES,
    one_sided=True,
    nonfinite=(0, 0),
    nonfinite_eval=(0, 0),
    shift=ZEROS,
    spread=ONES,
    precision=ONES,
    padding=0.0,
    pending=False,
    apart=ZEROS,
)


def two(value, others=0.0):
    """An array with this value in two of the ten features."""
    return np.where(np.arange(10) < 2, value, others)


def metrics(**changed):
    within = {k: v for k, v in changed.items() if k in TRAIN.__dataclass_fields__}
    return dataclasses.replace(
        WELL,
        train=dataclasses.replace(TRAIN, **within),
        **{k: v for k, v in changed.items() if k not in within},
    )


def faults(**changed):
    return [each.fault for each in diagnoses_of([metrics(**changed)])]


def notes(**changed):
    return [each.note for each in notes_of([metrics(**changed)])]


@pytest.mark.parametrize(
    ("well", "ill", "fault"),
    [
        ({"distance": two(0.49)}, {"distance": two(-0.51)}, "statistics mismatch"),
        ({"distance": np.eye(10)[0]}, {"distance": two(9)}, "statistics mismatch"),
        ({"log_ratio": two(0.69)}, {"log_ratio": two(-0.70)}, "statistics mismatch"),
        (
            {"distance": two(0.9), "samples": 29},
            {"distance": two(1.1), "samples": 29},
            "statistics mismatch",
        ),
        (
            {"distance": two(0.4), "unexplained": 0.0},
            {"distance": two(0.6), "unexplained": 0.4},
            "too few updates",
        ),
        (
            {"distance": 9 * ONES, "samples": 15},
            {"distance": 9 * ONES, "samples": 16},
            "statistics mismatch",
        ),
        ({"decay": 0.51}, {"decay": 0.5}, "momentum swapped"),
        ({"updates": 1}, {"updates": 0}, "never updated"),
        ({"count": 8.0}, {"count": 7.9}, "batch too small"),
        ({"count": 2.0, "corrected": True}, {"count": 2.0}, "batch too small"),
        ({"apart": 0.24 * ONES}, {"apart": 0.26 * ONES}, "batches differ"),
        ({"padding": 0.05}, {"padding": 0.06}, "padding leaks"),
        ({"padding": 1.0}, {"padding": 0.9}, "padding leaks"),
        ({"count": 1.1, "trains": None}, {"count": 1.0, "trains": None}, SINGLE),
        ({"distance": two(9), "small_scale": two(1) > 0}, {"distance": two(9)}, MISMATCH),
        # A constant is off by its distance in running standard deviations.
        (
            {"constant": ONES, "distance": 9 * ONES, "log_ratio": 6 * ONES},
            {"constant": ONES, "distance": 9 * ONES, "log_ratio": 5 * ONES},
            MISMATCH,
        ),
        # In σ = √(σ² + ε), a variance below ε does not make a distance meaningless.
        (
            {"dead": ONES, "distance": 0.4 * ONES},
            {"dead": ONES, "distance": ONES},
            MISMATCH,
        ),
        (
            {"saturated": 0.49 * ONES, "one_sided": False},
            {"saturated": 0.51 * ONES, "one_sided": False},
            "saturated",
        ),
        ({"precision": two(1.09, 1)}, {"precision": two(0.89, 1)}, "imprecise"),
        ({"nonfinite_eval": (1, 1)}, {"nonfinite": (1, 1)}, "non-finite values"),
    ],
)
def test_the_thresholds(well, ill, fault):
    assert faults(**well) == []
    assert faults(**ill) == [fault]


@pytest.mark.parametrize(
    ("without", "given", "note"),
    [
        (
            {"dead": np.eye(10)[0], "constant": np.eye(10)[0]},
            {"dead": two(1), "constant": two(1)},
            "dead features",
        ),
        ({"dead": two(0.4)}, {"dead": two(0.6)}, "low variance"),
        (
            {"small_scale": np.eye(10)[0] > 0},
            {"small_scale": two(1) > 0},
            "scales near zero",
        ),
        ({"saturated": two(0.99)}, {"saturated": two(1.0)}, "dead units"),
    ],
)
def test_a_note_is_no_fault(without, given, note):
    assert notes(**without) == []
    assert notes(**given) == [note]
    assert faults(**given) == []


def test_calls_of_one_norm_share_their_fault():
    """Two calls whose means are 0.8σ apart, and statistics between them."""
    calls = [
        metrics(distance=sign * 0.4 * ONES, batch_mean=(1 - sign * 0.4 * 2**0.5) * ONES)
        for sign in (1, -1)
    ]
    named = [dataclasses.replace(each, name=n) for each, n in zip(calls, "ab", strict=True)]
    assert diagnoses_of(named) == ()  # neither is far off
    calls = [
        metrics(distance=sign * 0.6 * ONES, batch_mean=(1 - sign * 0.6 * 2**0.5) * ONES)
        for sign in (1, -1)
    ]
    named = [dataclasses.replace(each, name=n) for each, n in zip(calls, "ab", strict=True)]
    assert [(each.fault, each.norm) for each in diagnoses_of(named)] == [
        ("shared norm", "a")
    ]
    # On the same inputs, both are off for another reason.
    alike = [dataclasses.replace(named[0], name=name) for name in "ab"]
    assert [(each.fault, each.norm) for each in diagnoses_of(alike)] == [(MISMATCH, "a")]


def test_of_the_faults_of_running_statistics_the_first_is_told():
    assert faults(decay=0.1, distance=9 * ONES) == ["momentum swapped"]
    assert faults(running_var=-ONES, distance=9 * ONES) == ["negative variance"]


@pytest.mark.parametrize(
    "name",
    [each if each == "tanh" else pytest.param(each, marks=SLOW) for each in RANGES],
)
def test_beyond_its_range_an_activation_hardly_changes(name):
    functions = {"tanh": jnp.tanh, "swish": jax.nn.silu}
    slope = jax.vmap(jax.grad(functions.get(name) or getattr(jax.nn, name)))
    z = jnp.linspace(-20, 20, 2001)
    slopes = abs(slope(z))
    low, high = range_of(name)
    beyond = (z < low - 0.01) | (z > high + 0.01)
    assert slopes[beyond].max() <= 0.0716 * slopes.max()


def rows(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize(
    ("x", "reduced", "share"),
    [
        (rows(4, 10, 8), (0, 1), 0),
        (rows(4, 10, 8).at[:, 6:].set(0), (0, 1), 0.4),
        (rows(4, 10, 8).at[1, :3].set(7), (0, 1), 0.075),
        (rows(4, 10, 8).at[:, 6:].set(jnp.arange(8.0)), (0, 1), 0.4),
        (rows(4, 10, 8).at[:, 6:].set(0), (2,), 0),  # as in a layer norm
        (rows(4, 10, 8).at[:, 5:8].set(0), (0, 1), 0),  # not at an end
        pytest.param(rows(10, 8).at[6:].set(0), (0,), 0.4, marks=SLOW),
        # Two samples are too few to tell, and so are two features; an area within an image
        # may be background.
        pytest.param(rows(10, 8).at[8:].set(0), (0,), 0, marks=SLOW),
        pytest.param(rows(10, 3, 3, 8).at[6:].set(0), (0, 1, 2), 0.4, marks=SLOW),
        pytest.param(
            rows(10, 6, 6, 8).at[:, 3:].set(0), (0, 1, 2), 0, marks=SLOW
        ),  # a background
        pytest.param(
            rows(4, 10, 2).at[:, 6:].set(0), (0, 1), 0, marks=SLOW
        ),  # too few features
        (rows(4, 10, 8).at[:, 6:].set(jnp.nan), (0, 1), 0),
    ],
)
@pytest.mark.usefixtures("lenient")
def test_padding_is_what_is_the_same_at_the_ends(x, reduced, share):
    features = (x.ndim - 1,)
    np.testing.assert_allclose(padded_share(x, None, features, reduced), share, atol=1e-6)


@pytest.mark.usefixtures("lenient")
def test_what_is_masked_is_no_padding():
    used = jnp.ones((4, 10, 8), bool).at[:, 6:].set(False)
    x = rows(4, 10, 8).at[:, 6:].set(0)
    assert padded_share(x, used, (2,), (0, 1)) == 0


def test_the_gap_is_of_all_batches():
    one, other = jnp.array([[3.0, 4.0]]), jnp.array([[4.0, 3.0]])
    gap = gap_of([differences(one, other), differences(one, one)])
    assert gap.relative == pytest.approx((2 / 50) ** 0.5)
    assert (gap.largest, gap.changed) == (1.0, 0.5)
    assert gap_of([differences({"a": one, "b": 1}, {"a": one, "b": 1})]).changed == 0
    assert gap_of([differences(one[0], other[0])]).changed is None


@pytest.mark.parametrize("kind", ["sparse", "few codes", "borders"])
def test_what_is_common_elsewhere_is_no_padding(kind, rng):
    """Silence, tokens that often repeat, and borders on both sides."""
    if kind == "sparse":
        x = (rng.random((32, 20, 8)) < 0.03).astype(np.float32)
    elif kind == "few codes":
        x = rng.normal(size=(4, 8))[rng.integers(0, 4, (32, 8))]
    else:
        x = rng.normal(size=(32, 12, 8))
        x[:, :2] = x[:, -2:] = 0
    x = jnp.asarray(x, jnp.float32)
    assert float(padded_share(x, None, (2,), (0, 1))) == 0
