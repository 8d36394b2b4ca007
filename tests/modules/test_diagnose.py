"""Each fault injected into a healthy network is reported for its layer, and no other."""

import functools
import json
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import errors, nnx

import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.diagnostics import FAULTS
from tests.modules.apis import each_api
from tests.modules.subjects import NORMS, Linen, Nnx, inputs, well

KEY = jax.random.key(0)
each_kind = pytest.mark.parametrize("kind", [Linen, Nnx])
pytestmark = pytest.mark.usefixtures("lenient")


def never_updated(kind):
    subject, batches = well(kind)
    subject.put("norm_1", mean=jnp.zeros(12), var=jnp.ones(12))
    return subject.diagnose(batches), ["norm_1"], "keep the batch_stats"


def frozen(kind):
    subject, batches = well(kind, momentum=1.0)
    subject.put("norm_1", mean=jnp.zeros(12), var=jnp.ones(12))
    return subject.diagnose(batches), ["norm_1"], "a decay of 1 freezes them"


def nonfinite_statistics(kind):
    subject, batches = well(kind)
    mean = subject.values("norm_0")["mean"].at[3].set(jnp.nan)
    subject.put("norm_0", mean=mean)
    return subject.diagnose(batches), ["norm_0"], "1 running statistics are NaN"


def negative_variance(kind):
    subject, batches = well(kind)
    subject.put("norm_1", var=subject.values("norm_1")["var"].at[3].set(-0.1))
    return subject.diagnose(batches), ["norm_1"], "1 running variances are negative"


def momentum_swapped(kind):
    subject, batches = well(kind, momentum=0.01)
    return subject.diagnose(batches), ["norm_1"], "momentum=0.99"


def too_few_updates(kind):
    subject, batches = well(kind)
    values, left = subject.values("norm_0"), 0.99**20
    mean, var = (1 - left) * values["mean"], left + (1 - left) * values["var"]
    subject.put("norm_0", mean=mean, var=var)
    return subject.diagnose(batches), ["norm_0"], "8[12]% of .* after (20|21) updates"


def mismatch(kind):
    subject, batches = well(kind)
    return subject.diagnose([255 * x for x in batches]), ["norm_0"], "calibrate on data"


def trains_in_evaluation(kind):
    subject, batches = well(kind)
    return subject.diagnose(batches, ignored=True), ["norm_1"], "pass the train flag"


def batch_too_small(kind):
    subject, batches = well(kind)
    return subject.diagnose(batches[0][:4]), NORMS, "a mean of 4 samples"


def batches_differ(kind):
    subject, batches = well(kind)
    batches = [batches[0], batches[1] + 12]
    subject.calibrate(batches)
    return subject.diagnose(batches), ["norm_0"], "shuffle"


def padding_leaks(kind):
    subject, _ = well(kind)
    x = inputs(3, 8, 10).at[:, 7:].set(0).at[0, 4:].set(0)
    subject.calibrate([x])
    return subject.diagnose(x), NORMS, "34% of the positions look like padding"


def padded_batch(kind):
    subject, batches = well(kind)
    x = batches[0].at[-20:].set(0)
    subject.calibrate([x])
    return subject.diagnose(x), NORMS, "31% of the positions look like padding"


def saturated(kind):
    subject, batches = well(kind)
    subject.put("norm_1", scale=jnp.full(12, 20.0))
    report = subject.diagnose(batches, activation={"norm_1": "tanh"})
    return report, ["norm_1"], "9.% of outputs are saturated"


def nonfinite_input(kind):
    subject, batches = well(kind)
    batches[0] = batches[0].at[5, 2].set(jnp.nan)
    return subject.diagnose(batches), ["norm_0"], "12 values in its input"


def nonfinite_output(kind):
    subject, batches = well(kind)
    subject.put("norm_1", scale=jnp.ones(12).at[0].set(jnp.inf))
    return subject.diagnose(batches), ["norm_1"], "output values are NaN or infinite"


MADE = {
    "non-finite statistics": (nonfinite_statistics,),
    "negative variance": (negative_variance,),
    "never updated": (never_updated, frozen),
    "momentum swapped": (momentum_swapped,),
    "too few updates": (too_few_updates,),
    "statistics mismatch": (mismatch,),
    "trains in evaluation": (trains_in_evaluation,),
    "batch too small": (batch_too_small,),
    "batches differ": (batches_differ,),
    "padding leaks": (padding_leaks, padded_batch),
    "saturated": (saturated,),
    "non-finite values": (nonfinite_input, nonfinite_output),
}
# Each of these compiles separately; the others share a program.
APART = (
    *(frozen, momentum_swapped, trains_in_evaluation, batch_too_small),
    *(padding_leaks, saturated),
)
IN_BOTH = (
    *(never_updated, nonfinite_statistics, too_few_updates, mismatch),
    nonfinite_input,
)
CASES = [
    pytest.param(
        fault,
        make,
        kind,
        id=f"{make.__name__}-{kind.__name__}",
        marks=[pytest.mark.slow]
        if make in APART or (kind is Nnx and make not in IN_BOTH)
        else [],
    )
    for fault in MADE
    for make in MADE[fault]
    for kind in (Linen, Nnx)
]


@pytest.mark.parametrize(("fault", "make", "kind"), CASES)
def test_a_fault_is_told_of_its_layer_and_nothing_else_is(fault, make, kind):
    report, norms, words = make(kind)
    told = [(each.fault, each.norm) for each in report.diagnoses]
    assert told == [(fault, norm) for norm in norms]
    assert fault in str(report)
    for each in report.diagnoses:
        assert re.search(words, each.words), each.words


def test_each_fault_is_made():
    # In float32, only flax's norms are imprecise, and two faults need other networks.
    elsewhere = {"imprecise", "shared norm", "one sample per mean"}
    assert {*MADE} | elsewhere == {*FAULTS}


@each_kind
def test_of_a_network_that_is_well_nothing_is_told(kind):
    subject, batches = well(kind)
    assert not subject.diagnose(batches).diagnoses
    assert not subject.diagnose(batches[0]).diagnoses


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_of_networks_that_are_well_nothing_is_told(kind, seed, size):
    subject, batches = well(kind, seed=seed, size=size)
    for given in (batches, batches[0]):
        report = subject.diagnose(given, activation="relu")
        assert not report.diagnoses, report


LAYERS = ("dense_0", "norm_0", "dense_1", "norm_1", "dense_2")


def modes_of(subject):
    return [getattr(subject.model, norm).use_running_average for norm in NORMS]


@each_kind
def test_nothing_is_changed(kind):
    subject, batches = well(kind)
    before = [subject.values(layer) for layer in LAYERS]
    if kind is Nnx:
        modes = modes_of(subject)
        state = jax.tree.leaves(nnx.state(subject.model))
    subject.diagnose(batches)
    chex.assert_trees_all_equal(before, [subject.values(layer) for layer in LAYERS])
    if kind is Nnx:
        assert modes == modes_of(subject)
        chex.assert_trees_all_equal(state, jax.tree.leaves(nnx.state(subject.model)))


@pytest.mark.parametrize("kind", [Linen, pytest.param(Nnx, marks=pytest.mark.slow)])
def test_a_report_is_text_a_picture_and_json(kind, tmp_path):
    subject, batches = well(kind)
    subject.put("norm_1", mean=jnp.full(12, jnp.nan))
    report = subject.diagnose(batches)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 118
    assert all(norm in text for norm in NORMS)
    report.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    kept = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [each["name"] for each in kept["norms"]] == list(NORMS)
    assert kept["norms"][1]["running_mean"] == ["nan"] * 12
    assert kept["diagnoses"][0]["fault"] == "non-finite statistics"


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batches_are_refused(batches):
    subject, _ = well(Linen)
    with pytest.raises(ValueError, match="there are no batches"):
        subject.diagnose(batches)


@pytest.mark.usefixtures("unchecked")
def test_an_activation_that_is_not_known_is_refused():
    subject, batches = well(Linen)
    with pytest.raises(ValueError, match="'rleu', but one of relu, relu6"):
        subject.diagnose(batches, activation="rleu")
    with pytest.raises(TypeError, match="a name is expected, such as 'relu'"):
        subject.diagnose(batches, activation={"norm_0": nn.relu})


def test_a_model_without_norms_is_refused():
    model = nn.Dense(3)
    x = inputs(0, 8)
    with pytest.raises(ValueError, match="no norm was called"):
        jn.diagnose(model, model.init(jax.random.key(0), x), x)


BIG = inputs(0, 64) + 1e4


@pytest.mark.slow
def test_the_variance_that_flax_loses_is_told_in_linen():
    norm = nn.BatchNorm()
    variables = norm.init(jax.random.key(0), BIG, use_running_average=True)
    mean, var = BIG.mean(0), BIG.var(0)
    variables = variables | {"batch_stats": {"mean": mean, "var": var}}
    report = jn.diagnose(norm, variables, BIG)
    assert [each.fault for each in report.diagnoses] == ["imprecise"]
    norm = nn.BatchNorm(use_fast_variance=False)
    assert not jn.diagnose(norm, variables, BIG).diagnoses


@pytest.mark.slow
def test_the_variance_that_flax_loses_is_told_in_nnx():
    norm = nnx.BatchNorm(6, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = BIG.mean(0), BIG.var(0)
    assert [each.fault for each in jx.diagnose(norm, BIG).diagnoses] == ["imprecise"]


def every_norm(theirs, ours):
    """Yields constructors of all norms, one after another."""
    for api in (theirs, ours):
        yield from (api.LayerNorm, api.RMSNorm, api.InstanceNorm)
        yield functools.partial(api.GroupNorm, num_groups=2)


class Transformed(nn.Module):
    """All kinds of norms, one inside a transform, one called twice."""

    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic):
        for norm in every_norm(nn, jn):
            x = norm()(x)
        x = nn.remat(jn.LayerNorm)()(x)
        twice = jn.BatchNorm(use_running_average=deterministic, name="twice")
        return nn.Dropout(0.1, deterministic=deterministic)(twice(twice(x) + 1))


@pytest.mark.slow
def test_every_norm_of_linen_is_seen():
    x = inputs(0, 16, 5)
    model = Transformed()
    report = jn.diagnose(model, model.init(jax.random.key(0), x, True), x)
    names = [norm.name for norm in report.norms]
    assert len(names) == 11
    assert names[-2:] == ["twice", "twice, call 2"]
    assert names[-3].startswith("CheckpointLayerNorm")
    assert {each.fault for each in report.diagnoses} == {"never updated"}


@pytest.mark.slow
def test_every_norm_of_nnx_is_seen():
    x, rngs = inputs(0, 16, 5), nnx.Rngs(0)
    twice = jx.BatchNorm(6, rngs=rngs)
    norms = [norm(6, rngs=rngs) for norm in every_norm(nnx, jx)]
    model = nnx.Sequential(*norms, twice, nnx.Dropout(0.1, rngs=rngs), twice)
    report = jx.diagnose(model, x)
    names = [norm.name for norm in report.norms]
    assert names == [*(f"layers/{i}" for i in range(9)), "layers/8, call 2"]
    assert {each.fault for each in report.diagnoses} == {"never updated"}


class Stacked(nnx.Module):
    """A norm, and three norms inside a scan."""

    def __init__(self, rngs):
        self.first = jx.BatchNorm(6, rngs=rngs)
        make = nnx.vmap(lambda key: jx.BatchNorm(6, rngs=nnx.Rngs(key)))
        self.rest = make(jax.random.split(jax.random.key(0), 3))

    def __call__(self, x):
        scan = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return scan(lambda x, norm: norm(x))(self.first(x), self.rest)


@pytest.mark.slow
def test_every_norm_of_a_scan_in_nnx_is_seen():
    report = jx.diagnose(Stacked(nnx.Rngs(0)), inputs(0, 16))
    names = [norm.name for norm in report.norms]
    assert names == ["first", "rest[0]", "rest[1]", "rest[2]"]


@pytest.mark.slow
@each_kind
def test_what_is_masked_is_not_seen(kind):
    subject, _ = well(kind)
    mask = jnp.arange(10)[:, None] < jnp.array([4, 10, 7, 7])[:, None, None]
    x = jnp.where(mask, inputs(5, 4, 10), jnp.nan)
    subject.calibrate([(x, mask)])
    report = subject.diagnose([(x, mask)])
    assert not report.diagnoses
    assert [norm.count for norm in report.norms] == [28, 28]


class Uses(nn.Module):
    """A model for each way of calling a norm that has caused bugs."""

    way: str

    @nn.compact
    def __call__(self, x, train):
        y = jn.BatchNorm(train=train and self.way != "frozen")(x)
        return (y, 2 * y) if train and self.way == "a head more" else y


@pytest.mark.parametrize("way", ["frozen", "a head more"])
def test_ways_to_call_a_norm(way):
    x = inputs(0, 64)
    variables = jax.eval_shape(functools.partial(Uses(way).init, train=False), KEY, x)
    # Far from the statistics of x.
    variables = jax.tree.map(lambda each: jnp.full(each.shape, 0.1), variables)
    report = jn.diagnose(Uses(way), variables, [x], call=lambda m, b, t: m(b, train=t))
    found = [each.fault for each in report.diagnoses]
    assert found == (["statistics mismatch"] if way == "a head more" else [])
    assert ("not compared" in str(report)) == (way == "a head more")


def test_statistics_that_are_missing_are_not_made_up():
    x = inputs(0, 64)
    params = {"scale": jnp.ones(x.shape[-1]), "bias": jnp.ones(x.shape[-1])}
    with pytest.raises(errors.ScopeCollectionNotFound):
        jn.diagnose(nn.BatchNorm(), {"params": params}, x)


def test_a_mode_that_the_constructor_says_is_said_once():
    model, x = nn.BatchNorm(use_running_average=True), inputs(0, 64)
    report = jn.diagnose(model, model.init(KEY, x), x)
    assert [each.fault for each in report.diagnoses] == ["never updated"]


def test_a_mask_may_be_given_by_its_place():
    x = inputs(0, 8).at[4:].set(jnp.nan)
    mask = jnp.broadcast_to(jnp.arange(8)[:, None] < 4, x.shape)
    norm = nnx.RMSNorm(x.shape[-1], rngs=nnx.Rngs(0))
    report = jx.diagnose(norm, [(x, mask)], call=lambda m, b, t: m(b[0], b[1]))
    assert report.norms[0].nonfinite[0] == 0


def test_what_jax_maps_is_not_seen_and_harms_nothing():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.seen = jx.LayerNorm(6, rngs=rngs)
            self.mapped = jx.LayerNorm(6, rngs=rngs)

        def __call__(self, x):
            return jax.vmap(self.mapped)(self.seen(x))

    report = jx.diagnose(Model(nnx.Rngs(0)), inputs(0, 8))
    assert [norm.name for norm in report.norms] == ["seen"]


@each_api
def test_a_schedule_of_the_decay_is_diagnosed_like_a_norm_without_one(api):
    x = 5 + jax.random.normal(jax.random.key(0), (64, 3))
    schedule = optax.linear_schedule(0.0, 0.9, 9)
    if api.name == "linen":
        norm = jn.BatchNorm(momentum=schedule)
        variables = norm.init(jax.random.key(0), x, train=False)
        report = jn.diagnose(norm, variables, x)
    else:
        report = jx.diagnose(jx.BatchNorm(3, momentum=schedule, rngs=nnx.Rngs(0)), x)
    assert [each.fault for each in report.diagnoses] == ["never updated"]
