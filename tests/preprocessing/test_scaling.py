"""Input statistics: fitted in batches or in one piece, and used to scale inputs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import jaxnorm
from jaxnorm import Moments, Summary, summarize
from jaxnorm.preprocessing import summary as summaries
from tests.core.test_moments import assert_same
from tests.support import oracle

fit = functools.partial(jaxnorm.fit, progress=False)

# Each is jitted once, because hypothesis draws hundreds of arrays of one shape.
summarized = jax.jit(summarize, static_argnames="feature_axes")
merged = jax.jit(jaxnorm.merge_summaries)
standardize, mean_normalize, min_max = SCALERS = [
    jax.jit(each, static_argnames="feature_axes")
    for each in (jaxnorm.standardize, jaxnorm.mean_normalize, jaxnorm.min_max)
]


@pytest.fixture
def x(rng):
    """48 samples of three features with different means and standard deviations."""
    return np.float32(rng.normal([0, 100, -3], [1, 20, 0.1], (48, 3)))


def batches(x):
    """Batches of unequal length, one of them empty."""
    return np.split(x, (7, 20, 20, 21))


def expected(x, weights=None):
    """The Summary of x over its first axis, in float64."""
    moments = Moments(*(each[0] for each in oracle.moments(x, (0,), weights)))
    used = np.broadcast_to(True if weights is None else np.asarray(weights) > 0, x.shape)
    low = np.min(x, 0, initial=np.inf, where=used)
    return Summary(moments, low, np.max(x, 0, initial=-np.inf, where=used))


def assert_alike(one: Summary, other: Summary):
    """Asserts that moments are equal up to rounding, and ranges to the last bit."""
    assert_same(one.moments, other.moments)
    np.testing.assert_array_equal(one.minimum, other.minimum)
    np.testing.assert_array_equal(one.maximum, other.maximum)


SAMPLES, PARTS = 8, 4
# None is so small that XLA, which flushes subnormal numbers, would treat it as 0.
values = st.integers(-(2**20), 2**20).map(lambda number: number / 2**10)


@settings(max_examples=30)
@given(
    hnp.arrays(np.float32, (SAMPLES, 2), elements=values),
    hnp.arrays(np.float32, (SAMPLES, 1), elements=st.sampled_from([0, 0.25, 1, 3])),
    hnp.arrays(np.int8, (SAMPLES, 1), elements=st.integers(0, PARTS - 1)),
    st.permutations(range(PARTS)),
    st.booleans(),
)
def test_parts_merge_to_the_whole_in_any_split_and_order(x, w, part, order, in_pairs):
    """Weights of 0 delimit the parts, to compile for one shape; their elements are NaN."""
    poisoned = np.where(w > 0, x, np.float32(np.nan))
    a, b, c, d = (summarized(poisoned, weights=w * (part == each)) for each in order)
    if in_pairs:
        whole = merged(merged(a, b), merged(c, d))
    else:
        whole = functools.reduce(merged, (a, b, c, d))
    assert_alike(whole, expected(x, w))


def test_nothing_is_the_identity(x):
    some, nothing = summarized(x), Summary.empty((3,))
    assert_alike(merged(some, nothing), some)
    assert_alike(merged(Summary.empty(), some), some)
    chex.assert_trees_all_equal(merged(nothing, nothing), nothing)
    chex.assert_trees_all_equal(summarized(x[:0]), nothing)
    chex.assert_trees_all_equal(summarized(x, weights=np.zeros((48, 1), bool)), nothing)


@pytest.mark.parametrize(
    ("scale", "reference"),
    [(standardize, StandardScaler), (min_max, MinMaxScaler)],
    ids=["standardize", "min_max"],
)
def test_scikit_learn_agrees(x, scale, reference):
    incremental = reference()
    for batch in batches(x):
        if len(batch):  # scikit-learn rejects empty batches
            incremental.partial_fit(batch.astype(np.float64))
    y = scale(x, fit(batches(x)))
    np.testing.assert_allclose(y, incremental.transform(x), atol=2e-5)
    np.testing.assert_allclose(y, reference().fit_transform(np.float64(x)), atol=2e-5)
    with jax.enable_x64(True):
        wide = x.astype(np.float64)
        summary = fit(batches(wide))
        chex.assert_type(jax.tree.leaves(summary), np.float64)
        y = scale(wide, summary)
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, incremental.transform(wide), atol=1e-12)


def test_a_large_mean_costs_no_more_than_its_own_rounding(rng):
    """Sorted data: merging batches one after another would lose half of the variance."""
    x = np.sort(np.float32(1e4 + rng.normal(size=(2**14, 1))), axis=0)
    summary = fit(np.split(x, 2**10))
    exact = expected(x)
    ulp = np.spacing(np.float32(1e4))
    assert abs(summary.moments.mean - exact.moments.mean) < 2 * ulp
    np.testing.assert_allclose(summary.moments.var, exact.moments.var, rtol=2e-3)
    y = (np.float64(x) - exact.moments.mean) / np.sqrt(exact.moments.var)
    np.testing.assert_allclose(standardize(x, summary), y, rtol=2e-3, atol=3 * ulp)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_padding_reaches_nothing(x, rng, kind):
    weights = (rng.uniform(size=(48, 1)) < 0.7).astype(kind) * kind(0.5)
    poisoned = np.where(weights > 0, x, np.float32(np.nan))
    summary = fit(zip(batches(poisoned), batches(weights), strict=True))
    assert_alike(summary, expected(x, weights))

    @jax.jit
    @jax.grad
    def slope(x):
        return sum(map(jnp.sum, jax.tree.leaves(summarize(x, weights=weights))))

    gradient = np.asarray(slope(poisoned))
    assert np.isfinite(gradient).all()
    assert (gradient[weights[:, 0] == 0] == 0).all()


def test_a_pass_goes_on_from_an_earlier_one(x):
    """Equal up to rounding, as other batches are paired; the range is exact."""
    first, second = batches(x)[:3], batches(x)[3:]
    assert_alike(fit(second, start=fit(first)), expected(x))
    assert_alike(fit(second, start=Summary.empty((3,))), fit(second))
    # As loaded from a file, in NumPy; and with no further batches.
    saved = jax.tree.map(np.asarray, fit(first))
    assert_alike(fit(second, start=saved), expected(x))
    assert fit([], start=saved) is saved


def test_one_batch_is_summarised_as_it_is(x):
    chex.assert_trees_all_equal(fit([x]), summarized(x))


def test_a_batch_is_done_with_before_the_next_is_loaded():
    """The batch is large enough for JAX to return before it has read it."""
    buffer = np.empty((2**18, 4), np.float32)

    def load():
        for value in range(6):
            buffer[:] = value
            yield buffer

    summary = fit(load())
    np.testing.assert_allclose(summary.moments.mean, np.full(4, 2.5), rtol=1e-6)
    np.testing.assert_array_equal(summary.minimum, np.zeros(4))


def test_a_shape_of_batch_is_compiled_for_once(x):
    compiled = summaries._summarize._cache_size
    before = compiled()
    for _ in range(2):
        fit(5 * [x[:11], x[:17]])
        assert compiled() == before + 2


@pytest.mark.parametrize(("axis", "shape"), [(1, (3,)), ((3, 1), (3, 2)), ((), ())])
def test_features_lie_on_any_axes(rng, axis, shape):
    x = np.float32(rng.normal(size=(6, 3, 5, 2)))
    summary = fit([x[:4], x[4:]], feature_axes=axis)
    assert summary.minimum.shape == shape
    samples = tuple(each for each in range(4) if each not in np.atleast_1d(axis))
    mean, std = x.mean(samples, keepdims=True), x.std(samples, keepdims=True)
    np.testing.assert_allclose(standardize(x, summary, axis), (x - mean) / std, atol=1e-5)
    low = x.min(samples, keepdims=True)
    y = (x - low) / (x.max(samples, keepdims=True) - low)
    np.testing.assert_allclose(min_max(x, summary, axis), y, atol=1e-6)


@pytest.mark.parametrize("scale", SCALERS, ids=lambda scale: scale.__name__)
class TestEachScaler:
    @pytest.mark.parametrize("constant", [0.0, 0.1, 7.7, 1e6 + 0.3])
    def test_a_constant_feature_gives_zero(self, scale, constant):
        x = np.full((20, 1), constant, np.float32)
        summary = fit([x[:7], x[7:10], x[10:]])
        np.testing.assert_array_equal(scale(x, summary), np.zeros((20, 1)))
        np.testing.assert_array_equal(scale(x + 1, summary), np.zeros((20, 1)))

    def test_a_feature_never_seen_gives_zero(self, scale, x):
        weights = np.broadcast_to(np.array([True, False, True]), x.shape)
        y = scale(x, fit([(x, weights)]))
        np.testing.assert_array_equal(y[:, 1], np.zeros(48))
        seen = scale(x, summarized(x))[:, ::2]
        np.testing.assert_allclose(y[:, ::2], seen, rtol=1e-4, atol=1e-5)

    def test_nan_in_the_data_shows(self, scale, x):
        broken = np.where(np.arange(48)[:, None] == [5, 48, 48], np.float32(np.nan), x)
        y = np.asarray(scale(x, fit(batches(broken))))
        np.testing.assert_array_equal(np.isnan(y).all(0), [True, False, False])
        assert np.isfinite(y[:, 1:]).all()

    def test_a_range_that_overflows_is_not_taken_for_a_constant(self, scale):
        x = np.float32([[-3e38], [3e38]])
        assert np.isnan(scale(x, summarized(x))).all()

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_16_bit_are_computed_in_float32(self, scale, x, dtype):
        x = jnp.asarray(x, dtype)
        summary = fit([x])
        chex.assert_type(jax.tree.leaves(summary), jnp.float32)
        y = scale(x, summary)
        assert y.dtype == dtype
        chex.assert_trees_all_equal(y, scale(x.astype(jnp.float32), summary).astype(dtype))

    def test_transformations_agree(self, scale, x):
        summary = summarized(x)
        y = scale(x, summary)
        chex.assert_trees_all_close(scale.__wrapped__(x, summary), y, atol=1e-6)
        each = jax.vmap(scale, in_axes=(0, None))(x, summary)
        chex.assert_trees_all_close(each, y, atol=1e-6)

    def test_the_gradient_is_finite_and_that_of_an_affine_map(self, scale, x):
        slope = jax.jit(jax.grad(lambda x, summary: scale(x, summary).sum()))
        features = np.float32([1, 0, 1])  # one of them constant, then without samples
        for summary in (summarized(x * features), Summary.empty((3,))):
            gradient = slope(x, summary)
            difference = scale(x + 1, summary) - scale(x, summary)
            np.testing.assert_allclose(gradient, difference, rtol=2e-4, atol=1e-6)
        whole = jax.jit(jax.grad(lambda x: (scale(x, summarize(x)) ** 3).sum()))
        assert np.isfinite(whole(x * features)).all()

    def test_operands_that_do_not_fit_are_refused(self, scale, x):
        with pytest.raises(ValueError, match=r"of shape \(2,\).* has \(3,\) along"):
            scale(x, Summary.empty((2,)))
        with pytest.raises(TypeError, match=r"x\.astype\(jnp\.float32\)"):
            scale(x.astype(np.int32), Summary.empty((3,)))

    @pytest.mark.usefixtures("unchecked")
    def test_only_a_summary_will_do(self, scale, x):
        with pytest.raises(TypeError, match=r"Moments was given instead of.*fit\("):
            scale(x, Moments.empty((3,)))


def test_nothing_to_summarise_is_refused():
    with pytest.raises(ValueError, match=r"no batches, and no start=.*make a new one"):
        fit(iter([]))
    with pytest.raises(ValueError, match=r"start with Summary\.empty\(\)"):
        merged()
    with pytest.raises(ValueError, match="they must be of the same features"):
        merged(Summary.empty((2,)), Summary.empty((3,)))


def test_batches_that_do_not_fit_are_refused(x):
    with pytest.raises(TypeError, match=r"dtype uint8.*x\.astype\(jnp\.float32\)"):
        fit([x.astype(np.uint8)])
    with pytest.raises(ValueError, match=r"\(48, 2\) has features of shape \(2,\).*3"):
        fit([x, x[:, :2]])
    with pytest.raises(ValueError, match=r"start=, have \(2,\)"):
        fit([x], start=Summary.empty((2,)))
    with pytest.raises(ValueError, match=r"tuple of 3.*\(x, weights\)"):
        fit([(x, x, x)])
    with pytest.raises(ValueError, match="does not broadcast"):
        fit([(x, np.arange(48.0))])
    with pytest.raises(ValueError, match="axis 2 is out of range"):
        fit([x], feature_axes=2)


def test_labels_are_not_taken_for_weights(x):
    """Also where they would broadcast, as those of one-dimensional samples do."""
    for labels in (np.arange(48), np.ones((48, 1), np.int32)):
        with pytest.raises(TypeError, match=r"int(32|64).*If they are labels, select x"):
            fit([(x, labels)])
    mask = np.arange(48)[:, None] < 40
    assert fit([(x, mask)]).moments.count.tolist() == [40, 40, 40]


def test_what_holds_an_array_is_not_taken_for_one(x):
    with pytest.raises(TypeError, match=r"a dict with the keys \['image'\].*select x"):
        fit([{"image": x}])


@pytest.mark.usefixtures("unchecked")
def test_only_a_summary_goes_on(x):
    with pytest.raises(TypeError, match="a Moments was given instead of a Summary"):
        fit([x], start=Moments.empty((3,)))


def test_progress_goes_to_stderr_or_nowhere(x, capsys):
    fit(batches(x))
    assert capsys.readouterr() == ("", "")
    fit(batches(x), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err
    fit(iter(batches(x)), progress=True)  # an iterator of unknown length
    assert "5batch" in capsys.readouterr().err
