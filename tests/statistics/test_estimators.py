"""Estimators: what each computes from successive batches, and the laws that all obey."""

import dataclasses
import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnorm import (
    CountedStatistics,
    Moments,
    Statistics,
    accumulate,
    collect,
    cumulative,
    ema,
    measure,
    merge,
    population,
    skip_nonfinite,
)
from jaxnorm.statistics.averages import PlainAverage
from jaxnorm.statistics.state_names import named
from tests.support.estimators import ESTIMATORS, each_estimator

floats = st.floats(-10, 10, width=32)


def batch(mean, var=1.0, count=4.0, dtype=jnp.float32):
    return Moments(*(jnp.full(2, each, dtype) for each in (count, mean, var)))


@functools.cache
def compiled(estimator):
    return jax.jit(estimator.update)


def after(estimator, batches, state=None):
    state = estimator.init((2,)) if state is None else state
    for each in batches:
        state = compiled(estimator)(state, each)
    return state


def seen(estimator, batches, state=None):
    """The mean and variance of the first feature, read after these batches."""
    _, mean, var = estimator.read(after(estimator, batches, state))
    return float(mean[0]), float(var[0])


@each_estimator
def test_starts_as_if_nothing_had_to_be_normalised(estimator):
    count, mean, var = estimator.read(estimator.init((3,)))
    chex.assert_trees_all_equal(mean, jnp.zeros(3))
    chex.assert_trees_all_equal(var, jnp.ones(3))
    assert jnp.isinf(count).all()


@each_estimator
def test_a_count_of_0_leaves_the_statistics(estimator):
    state = after(estimator, [batch(3.0), batch(5.0, 2.0)])
    once_more = compiled(estimator)(state, Moments.empty((2,)))
    chex.assert_trees_all_equal(estimator.read(once_more), estimator.read(state))
    if not {"batches"} & set(_fields(state)):  # an accumulation still counts the batch
        chex.assert_trees_all_equal(once_more, state)


def _fields(state):
    fields = getattr(state, "_fields", ())
    return [*fields, *(name for each in fields for name in _fields(getattr(state, each)))]


@each_estimator
def test_a_feature_without_weight_is_left_while_another_is_updated(estimator):
    half = batch(5.0, 2.0)._replace(count=jnp.array([4.0, 0.0]))
    once = after(estimator, [batch(3.0)] * 2)
    both, one = (after(estimator, [each] * 2, once) for each in (batch(5.0, 2.0), half))
    before, all_new, new = map(estimator.read, (once, both, one))
    np.testing.assert_array_equal(new.mean, [all_new.mean[0], before.mean[1]])
    np.testing.assert_array_equal(new.var, [all_new.var[0], before.var[1]])


@each_estimator
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_state_keeps_its_dtypes_so_that_it_can_be_carried(estimator, dtype):
    with jax.enable_x64(True):
        state = estimator.init((2,), dtype)
        updated = jax.eval_shape(estimator.update, state, batch(1.0, dtype=jnp.float64))
        chex.assert_trees_all_equal_shapes_and_dtypes(updated, state)


@given(st.floats(0, 1), st.lists(floats, min_size=1, max_size=4))
def test_ema_is_the_weighted_sum_of_its_past(decay, means):
    expected = 0.0
    for mean in means:
        expected = decay * expected + (1 - decay) * mean
    estimator = ema(decay)
    state = estimator.init((2,))
    for mean in means:
        state = estimator.update(state, batch(mean))
    np.testing.assert_allclose(estimator.read(state).mean, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [-0.01, 1.01, float("nan"), 99])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay={decay}.*\[0, 1\].*torch"):
        ema(decay)


@pytest.mark.parametrize("debias", [False, True])
def test_a_decay_of_1_freezes_and_of_0_forgets(debias):
    for mean in (3.0, jnp.nan, jnp.inf):
        assert seen(ema(1, debias), [batch(mean)]) == (0, 1)
    assert seen(ema(0, debias), [batch(9.0), batch(3.0, 2.0)]) == (3, 2)


def test_a_plain_ema_has_the_state_of_flax_and_no_more():
    state = ema(0.5, unbiased=True).init((3,))
    chex.assert_trees_all_equal(state, Statistics(jnp.zeros(3), jnp.ones(3)))
    assert isinstance(ema(0.5, debias=True).init((3,)), CountedStatistics)


def weights_of(estimator, number):
    """The weights of the initial value and of each batch, after this number of batches."""
    zero, one = batch(0.0, 0.0), batch(1.0, 1.0)
    start = estimator.init((2,))._replace(mean=jnp.ones(2))
    weights = [seen(estimator, [zero] * number, start)[0]]
    start = start._replace(mean=jnp.zeros(2))
    for i in range(number):
        batches = [one if i == j else zero for j in range(number)]
        weights.append(seen(estimator, batches, start)[0])
    return weights


@pytest.mark.parametrize(
    "options",
    [{"debias": True}, {"warmup": True}, {"debias": True, "warmup": True}],
    ids=" and ".join,
)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_weights_of_ema_are_products_of_its_decays(options, number):
    def decay(n):
        return min(0.9, (1 + n) / (10 + n)) if "warmup" in options else 0.9

    each = [decay(n) for n in range(number)]
    weights = [(1 - each[i]) * np.prod(each[i + 1 :]) for i in range(number)]
    start = np.prod(each)
    if options.get("debias"):
        weights, start = np.array(weights) / np.sum(weights), 0
    expected = [start, *weights]
    np.testing.assert_allclose(
        weights_of(ema(0.9, **options), number), expected, rtol=2e-6, atol=1e-7
    )


def test_debiasing_with_a_warm_up_holds_beyond_the_warm_up():
    """(1 + n)/(10 + n) reaches 0.55 at n = 10."""
    estimator, expected, weight = ema(0.55, debias=True, warmup=True), 0.0, 0.0
    means = np.float32(np.random.default_rng(0).normal(5, 1, 30))
    state = estimator.init((2,))
    for n, mean in enumerate(means):
        decay = min(0.55, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * mean
        weight = decay * weight + (1 - decay)
        state = compiled(estimator)(state, batch(mean))
        np.testing.assert_allclose(state.mean, expected / weight, rtol=1e-6)


@pytest.mark.parametrize("start", [0.0, -7.0, 1e30, np.nan])
def test_debiasing_is_exact_for_any_start(start):
    """Other libraries assume a start at 0; here nothing of any start is left."""
    estimator = ema(0.99, debias=True)
    state = estimator.init((2,))._replace(mean=jnp.full(2, start), var=jnp.full(2, start))
    assert seen(estimator, [batch(3.0, 2.0)], state) == (3, 2)
    after_many = seen(estimator, [batch(3.0, 2.0)] * 20, state)
    np.testing.assert_allclose(after_many, (3, 2), rtol=1e-6)


@pytest.mark.parametrize("decay", [1 - 1e-8, 1 - 2**-25, 0.999999])
def test_debiasing_holds_for_decays_that_float32_takes_for_1(decay):
    means = (1.0, 2.0, 6.0)
    mean, var = seen(ema(decay, debias=True), [batch(each) for each in means])
    assert mean == pytest.approx(3, rel=1e-5)
    assert var == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "last"), [("float32", 2**24), ("float16", 2**11), ("bfloat16", 2**8)]
)
@pytest.mark.parametrize("options", [{"debias": True}, {"warmup": True}])
def test_the_number_of_updates_does_not_overflow(options, dtype, last):
    """Where it stops, the average has the decay of a long training."""
    estimator = ema(0.999, **options)
    state = estimator.init((2,))._replace(updates=jnp.full(2, last, dtype))
    after_one = after(estimator, [batch(4.0)], state)
    assert after_one.updates.dtype == dtype
    assert (after_one.updates == last).all()
    np.testing.assert_allclose(after_one.mean, 0.004, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_microbatches_are_counted_in_16_bits_as_far_as_they_can_be(dtype):
    estimator = accumulate(ema(0.5), every=5000)
    state = jax.tree.map(lambda each: each.astype(dtype), estimator.init(()))
    last = {"float16": 2**11, "bfloat16": 2**8}[dtype]
    waiting = state._replace(batches=jnp.asarray(last - 1, dtype))
    waiting = estimator.update(waiting, Moments(*map(jnp.float32, (4, 3, 1))))
    assert float(waiting.statistics.mean) == 0
    done = estimator.update(waiting, Moments(*map(jnp.float32, (4, 3, 1))))
    assert (float(done.statistics.mean), float(done.batches)) == (1.5, 0)


@pytest.mark.parametrize("options", [{"debias": True}, {"warmup": True}])
def test_matured_statistics_are_followed_as_by_a_plain_average(options):
    estimator, plain = ema(0.9, **options), ema(0.9)
    loaded = {"mean": jnp.full(2, 5.0), "var": jnp.full(2, 4.0)}
    batches = [batch(0.5), batch(3.0, 2.0)]
    wrapped = skip_nonfinite(accumulate(estimator, 1))
    state = wrapped.matured(wrapped.init((2,)))
    inner = state.statistics.statistics._replace(**loaded)
    state = state._replace(statistics=state.statistics._replace(statistics=inner))
    found = after(wrapped, batches, state).statistics.statistics
    expected = after(plain, batches, plain.init((2,))._replace(**loaded))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "what"), [(cumulative(), "batches"), (population(), "samples")]
)
def test_averages_of_all_cannot_go_on_from_an_unknown_number(estimator, what):
    with pytest.raises(ValueError, match=f"the number of {what}.*use ema"):
        skip_nonfinite(estimator).matured(skip_nonfinite(estimator).init(()))


@each_estimator
def test_equal_estimators_are_equal_and_can_be_pickled(estimator):
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    assert hash(pickle.loads(pickle.dumps(estimator))) == hash(estimator)
    assert estimator != ema(0.123)


@pytest.mark.parametrize("kind", [population(), accumulate(ema(0.9), 2), collect(ema(0.9))])
def test_counts_of_16_bit_states_are_not_of_16_bits(kind):
    state = kind.init((2,), jnp.float16)
    counts = [v for k, v in named(state).items() if k.endswith("count")]
    assert [each.dtype for each in counts] == [jnp.float32]
    many = after(kind, [batch(3.0, 2.0, 65_536.0)] * 2, state)
    chex.assert_tree_all_finite(many)


def test_an_accumulation_that_collects_leaves_out_what_its_guard_does():
    estimator = collect(accumulate(skip_nonfinite(ema(0.9)), 2))
    state = after(estimator, [batch(3.0), batch(jnp.nan), batch(5.0)])
    assert (state.collected.mean == 4).all()
    unguarded = after(collect(ema(0.9)), [batch(3.0), batch(jnp.nan)])
    assert jnp.isnan(unguarded.collected.mean).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make", [lambda: ema(0.9, 0.5), lambda: population(0.9), lambda: cumulative(1)]
)
def test_a_number_in_place_of_an_option_is_refused(make):
    with pytest.raises(TypeError, match="but True or False is expected"):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrap", [skip_nonfinite, collect, lambda e: accumulate(e, 2)])
def test_what_is_no_estimator_cannot_be_wrapped(wrap):
    with pytest.raises(TypeError, match=r"estimator=0.9.*write ema\(decay\)"):
        wrap(0.9)


def test_bessels_correction_has_no_pole_at_one_sample():
    """Weights that add up to 1 only up to rounding would otherwise give any value."""
    for count in (1 - 2**-24, 1.0, 1 + 2**-23, 1.001):
        _, var = seen(ema(0.0, unbiased=True), [batch(0.0, 3.0, count=count)])
        assert var == pytest.approx(3, rel=2e-3)


def test_bessels_correction_is_that_of_each_batch():
    batches = [batch(0.0, 3.0, count=4.0), batch(0.0, 1.0, count=2.0)]
    assert seen(cumulative(unbiased=True), batches)[1] == (4 + 2) / 2
    # A single sample has no variance to correct, and weights may add up to less than 1.
    assert seen(ema(0.0, unbiased=True), [batch(0.0, 3.0, count=1.0)])[1] == 3
    assert seen(ema(0.0, unbiased=True), [batch(0.0, 3.0, count=0.5)])[1] == 3


@given(st.lists(st.lists(floats, min_size=1, max_size=5), min_size=1, max_size=5))
def test_population_is_that_of_all_samples_in_whatever_batches(parts):
    moments = [_moments_of(part) for part in parts]
    everything = np.concatenate(parts)
    estimator = ESTIMATORS["population"]
    state = after(estimator, moments)
    count, mean, var = (float(each[0]) for each in state)
    assert count == len(everything)
    np.testing.assert_allclose(mean, everything.mean(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(var, everything.var(), rtol=1e-4, atol=1e-4)
    read = float(estimator.read(state).var[0])
    correction = count / (count - 1) if count > 1 else 1
    np.testing.assert_allclose(read, correction * var, rtol=1e-6)


def _moments_of(values):
    values = np.float32(values)
    return batch(values.mean(), values.var(), count=len(values))


def test_the_papers_population_leaves_out_what_lies_between_batches():
    """Two batches of ±1 about 0 and 10: the variance is 26, and 25 lies between them."""
    batches = [batch(0.0, 1.0, count=2.0), batch(10.0, 1.0, count=2.0)]
    assert seen(population(unbiased=False), batches) == (5, 26)
    assert seen(population(), batches) == (5, pytest.approx(26 * 4 / 3))
    assert seen(population(pooled=False), batches) == (5, 2)  # m/(m − 1) with m = 2
    assert seen(population(pooled=False, unbiased=False), batches) == (5, 1)


@pytest.mark.parametrize("spoilt", [{"mean": jnp.nan}, {"var": jnp.inf}, {"var": jnp.nan}])
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(spoilt):
    estimator = ESTIMATORS["guarded"]
    state = after(estimator, [batch(3.0)])
    # Only one of two features is not finite; the other is left out with it.
    bad = batch(1.0)._replace(**{k: jnp.array([1.0, v]) for k, v in spoilt.items()})
    skipped = after(estimator, [bad], state)
    chex.assert_trees_all_equal(skipped.statistics, state.statistics)
    assert (int(state.skipped), int(skipped.skipped)) == (0, 1)
    unguarded = seen(ema(0.9), [batch(3.0), bad])
    assert not np.array_equal(unguarded, seen(estimator, [batch(3.0), bad]))


def test_accumulating_updates_once_by_the_merged_moments(rng):
    parts = rng.normal(3, 2, (6, 5, 2)).astype(np.float32)
    moments = [measure(part, 0) for part in parts]
    expected = after(ema(0.9), [merge(*moments[:3]), merge(*moments[3:])])
    estimator = accumulate(ema(0.9), every=3)
    chex.assert_trees_all_close(after(estimator, moments).statistics, expected, rtol=1e-6)
    waiting = after(estimator, moments[:2])
    chex.assert_trees_all_equal(waiting.statistics, ema(0.9).init((2,)))
    assert int(waiting.batches) == 2
    chex.assert_trees_all_close(waiting.pending, merge(*moments[:2]), rtol=1e-6)
    emptied = after(estimator, moments[:3])
    chex.assert_trees_all_equal(emptied.pending, Moments.empty((2,)))


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (1.5, TypeError)])
@pytest.mark.usefixtures("unchecked")
def test_a_number_of_batches_that_is_none_is_refused(every, error):
    with pytest.raises(error, match=f"every={every}"):
        accumulate(ema(0.9), every)


def test_collecting_leaves_the_statistics_and_merges_the_moments(rng):
    parts = rng.normal(3, 2, (3, 5, 2)).astype(np.float32)
    state = after(collect(ema(0.9)), [measure(part, 0) for part in parts])
    chex.assert_trees_all_equal(state.statistics, ema(0.9).init((2,)))
    whole = measure(parts.reshape(-1, 2), 0)
    chex.assert_trees_all_close(state.collected, whole, rtol=1e-6)


@each_estimator
def test_an_update_can_be_mapped_and_differentiated(estimator):
    states = jax.vmap(lambda _: estimator.init((2,)))(jnp.arange(3))
    moments = jax.tree.map(lambda each: jnp.stack([each, 2 * each, 3 * each]), batch(1.0))
    mapped = jax.vmap(estimator.update)(states, moments)
    last = estimator.update(estimator.init((2,)), batch(3.0, 3.0, 12.0))
    chex.assert_trees_all_close(jax.tree.map(lambda each: each[2], mapped), last, rtol=1e-6)

    def read(mean):
        state = estimator.update(estimator.init((2,)), batch(1.0)._replace(mean=mean))
        return estimator.read(state).mean.sum()

    chex.assert_tree_all_finite(jax.grad(read)(jnp.array([1.0, 2.0])))


@pytest.mark.parametrize(
    "estimator",
    [
        cumulative(),
        population(pooled=False),
        population(unbiased=False),
        ema(0.9999, debias=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("updates", [10**4, pytest.param(10**7, marks=pytest.mark.slow)])
def test_batches_that_are_all_alike_leave_their_average(estimator, updates):
    """To the last bit: with factors that add up to 1 up to rounding it would drift."""
    same = Moments(*(jnp.float32(each) for each in (8.0, 1000.1, 2.3)))

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, updates, lambda _, s: estimator.update(s, same), state)

    state = run(estimator.update(estimator.init(()), same))
    first = estimator.update(estimator.init(()), same)
    assert float(state.mean) == float(first.mean)
    assert float(state.var) == float(first.var)


@pytest.mark.parametrize("decay", [1 - 3e-9, 1 - 1e-16, 1.0, 0.0])
@pytest.mark.parametrize("debias", [False, True])
def test_any_decay_can_be_warmed_up(decay, debias):
    estimator = ema(decay, warmup=True, debias=debias)
    state = estimator.update(estimator.init((2,)), batch(3.0))
    chex.assert_tree_all_finite(estimator.update(state, batch(5.0)))


def test_counters_stop_at_the_largest_number():
    estimator = skip_nonfinite(ema(0.9))
    last = 2**24
    state = estimator.init((2,))._replace(skipped=jnp.float32(last))
    assert int(estimator.update(state, batch(jnp.nan)).skipped) == last


@pytest.mark.parametrize("options", [{}, {"warmup": True}])
@pytest.mark.parametrize("updates", [10**4, pytest.param(10**7, marks=pytest.mark.slow)])
def test_an_average_that_is_at_a_constant_stays_there(options, updates):
    estimator = ema(0.99999, **options)
    same = Moments(*(jnp.float32(each) for each in (8.0, 1000.1, 2.3)))
    start = estimator.init(())._replace(mean=same.mean, var=same.var)

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, updates, lambda _, s: estimator.update(s, same), state)

    state = run(start)
    assert (float(state.mean), float(state.var)) == (float(same.mean), float(same.var))


@dataclasses.dataclass(frozen=True)
class Counting(PlainAverage):
    """An `ema` that records when it is traced."""

    traced: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def shares(self, state, dtype):
        self.traced.append(dtype)
        return super().shares(state, dtype)


def test_an_update_is_traced_once_for_a_shape():
    """For any number of norms; it took half of the time of tracing a batch norm."""
    estimator = Counting(unbiased=False, decay=0.9)
    state = estimator.init((3,))
    for _ in range(3):
        jax.jit(lambda state, batch: estimator.update(state, batch)).trace(
            state, Moments.empty((3,))
        )
    assert len(estimator.traced) == 2  # for the mean and for the variance


def test_a_schedule_gives_the_decay_of_each_update():
    schedule = optax.linear_schedule(0.0, 0.8, 4)
    means = (1.0, 2.0, 6.0, 4.0, 5.0, 3.0)
    expected = 0.0
    for n, mean in enumerate(means):
        decay = min(0.2 * n, 0.8)
        expected = decay * expected + (1 - decay) * mean
    mean, _ = seen(ema(schedule), [batch(each) for each in means])
    assert mean == pytest.approx(expected, rel=1e-6)
    plain, _ = seen(ema(lambda updates: 0.9), [batch(each) for each in means])
    assert plain == pytest.approx(seen(ema(0.9), [batch(each) for each in means])[0])


def test_a_schedule_counts_each_feature_for_itself():
    estimator = ema(lambda updates: jnp.where(updates == 0, 0.0, 1.0))
    first = Moments(jnp.float32([4, 0]), jnp.float32([1, 0]), jnp.float32([2, 0]))
    state = after(estimator, [first, batch(3.0)])
    assert state.mean.tolist() == [1, 3]


def test_a_traced_decay_is_that_number():
    @jax.jit
    def run(decay, state):
        return ema(decay, unbiased=True).update(state, batch(4.0))

    expected = after(ema(0.75, unbiased=True), [batch(4.0)])
    for _ in range(2):  # another tracer at each call
        jax.clear_caches()
        chex.assert_trees_all_close(run(0.75, ema(0.5).init((2,))), expected, rtol=1e-6)
    assert ema(jnp.float32(0.5)) == ema(0.5)
    # It may also be differentiated, as a hyperparameter.
    slope = jax.grad(lambda decay: run(decay, ema(0.5).init((2,))).mean[0])(0.75)
    assert float(slope) == -4


@pytest.mark.usefixtures("unchecked")
def test_decays_that_are_not_known_have_no_options():
    for options in ({"debias": True}, {"warmup": True}):
        with pytest.raises(ValueError, match="let the schedule start at 0"):
            ema(lambda updates: 0.9, **options)
    with pytest.raises(ValueError, match="not known before tracing"):
        jax.jit(lambda decay: ema(decay, debias=True).init(()))(0.9)
    with pytest.raises(TypeError, match=r"int32\[2\], but a scalar float"):
        jax.jit(lambda decay: ema(decay).init(()))(jnp.zeros(2, int))
