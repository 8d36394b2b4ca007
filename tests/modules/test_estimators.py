"""Estimators, flags, weights and ghost batches: both APIs agree with the functions."""

import pickle

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx
from jaxnorm.statistics.state_names import named
from tests.modules.apis import LINEN, each_api, most_different_norms, normal, training

pytestmark = pytest.mark.usefixtures("lenient")
BATCHES = [3 * normal(4, 5, 6) + i for i in range(3)]
KEPT = ("mean", "var")
KINDS = {
    "debiased": (jaxnorm.ema(0.9, debias=True), (*KEPT, "updates")),
    "population": (jaxnorm.population(), ("count", *KEPT)),
    "guarded": (jaxnorm.skip_nonfinite(jaxnorm.ema(0.9)), (*KEPT, "skipped")),
    "accumulating": (
        jaxnorm.accumulate(jaxnorm.ema(0.9), every=2),
        (*KEPT, "pending_count", "pending_mean", "pending_var", "batches"),
    ),
}


def arrays(batch_stats):
    """Returns the statistics by name, as plain arrays, for either API."""
    return {name: jnp.asarray(value[...]) for name, value in batch_stats.items()}


def steps(model, batches, **call):
    """Returns the outputs for successive batches, and the final variables."""
    variables, outputs = model.variables, []
    for x in batches:
        y, statistics = model.apply(variables, x, **training("BatchNorm"), **call)
        variables = variables | {"batch_stats": statistics}
        outputs.append(y)
    return outputs, variables


def made(api, **arguments):
    return api.model(api.ours.BatchNorm, BATCHES[0], 6, **arguments)


@each_api
@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_is_kept_by_the_names_of_its_state(api, kind):
    estimator, names = KINDS[kind]
    model = made(api, estimator=estimator)
    assert set(arrays(model.variables["batch_stats"])) == set(names)
    outputs, variables = steps(model, BATCHES)
    state = estimator.init((6,))
    for x, y in zip(BATCHES, outputs, strict=True):
        expected, state = jaxnorm.batch_norm(x, state, train=True, estimator=estimator)
        chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-6)
    kept = arrays(variables["batch_stats"])
    chex.assert_trees_all_close(kept, named(state), rtol=1e-5)
    y, _ = model.apply(variables, BATCHES[0], use_running_average=True)
    read, _ = jaxnorm.batch_norm(BATCHES[0], state, train=False, estimator=estimator)
    chex.assert_trees_all_close(y, read, rtol=1e-5, atol=1e-6)


@each_api
@pytest.mark.parametrize("where", ["constructor", "call"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("update", [True, False])
def test_normalising_and_updating_are_switched_apart(api, where, train, update):
    constructed, called = ({"update": update}, {})[:: 1 if where == "constructor" else -1]
    model = made(api, momentum=0.9, **constructed)
    x = BATCHES[0]
    y, statistics = model.apply(model.variables, x, use_running_average=not train, **called)
    before = model.variables["batch_stats"]
    state = jaxnorm.Statistics(**arrays(before))
    expected, _ = jaxnorm.batch_norm(x, state, train=train, estimator=jaxnorm.ema(0.99))
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-6)
    moments = jaxnorm.measure(x, (0, 1))
    if update:
        after = jaxnorm.Statistics(**arrays(statistics))
        chex.assert_trees_all_close(after.mean, 0.1 * moments.mean, rtol=1e-5)
    else:
        chex.assert_trees_all_equal(arrays(statistics), arrays(before))


@each_api
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("flag", [1, "yes"])
def test_an_update_that_is_no_bool_is_refused(api, flag):
    with pytest.raises(TypeError, match=rf"update.*={flag!r}, but True or False"):
        made(api, update=flag)(BATCHES[0], use_running_average=True)


def test_updates_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="contradict each other; give one"):
        made(LINEN, update=True)(BATCHES[0], use_running_average=True, update=False)


@each_api
@most_different_norms
def test_weights_are_taken_in_place_of_a_mask(api, norm):
    arguments = {"num_groups": 3} if norm == "GroupNorm" else {}
    ours, _ = api.pair(norm, BATCHES[0], **arguments)
    # Weights of features for norms that reduce these, and of positions for the others.
    axis = -1 if norm in ("LayerNorm", "RMSNorm") else 1
    shape = [1, 1, 1]
    shape[axis] = BATCHES[0].shape[axis]
    twice = jnp.ones(shape).at[:, :1, :1].set(2.0)
    repeated = jnp.concatenate(
        [BATCHES[0], jnp.split(BATCHES[0], shape[axis], axis)[0]], axis
    )
    call = training(norm)
    weighted = ours(BATCHES[0], weights=twice, **call)
    if axis == 1:
        chex.assert_trees_all_close(
            weighted, ours(repeated, **call)[:, :-1], rtol=1e-5, atol=1e-5
        )
    mask = twice < 2
    chex.assert_trees_all_equal(
        ours(BATCHES[0], weights=mask, **call), ours(BATCHES[0], mask=mask, **call)
    )
    assert jnp.abs(weighted - ours(BATCHES[0], **call)).max() > 1e-3
    with pytest.raises(ValueError, match=r"a mask and weights are given.*weights \* mask"):
        ours(BATCHES[0], mask=mask, weights=twice, **call)


@each_api
def test_ghosts_are_those_of_the_function(api):
    ours = made(api, ghost_size=2)
    expected, _ = jaxnorm.batch_norm(
        BATCHES[0],
        jaxnorm.ema(0.99).init((6,)),
        train=True,
        estimator=jaxnorm.ema(0.99),
        ghost_size=2,
    )
    y = ours(BATCHES[0], **training("BatchNorm"))
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-6)


@each_api
def test_batch_renormalisation_follows_its_limits(api):
    """Acts as batch norm for two steps, then applies the full corrections."""

    def limits(steps):
        return jnp.where(steps < 2, 1.0, 9.0), jnp.where(steps < 2, 0.0, 9.0)

    model = api.model(api.ours.BatchRenorm, BATCHES[0], 6, limits=limits, momentum=0.5)
    outputs, variables = steps(model, BATCHES)
    plain, _ = steps(made(api, momentum=0.5), BATCHES)
    chex.assert_trees_all_close(outputs[:2], plain[:2], rtol=1e-5, atol=1e-5)
    _, second = steps(model, BATCHES[:2])
    expected, unchanged = model.apply(second, BATCHES[2], use_running_average=True)
    chex.assert_trees_all_close(outputs[2], expected, rtol=1e-4, atol=1e-4)
    kept, before = (arrays(each) for each in (variables["batch_stats"], unchanged))
    assert (int(kept["steps"]), int(before["steps"])) == (3, 2)


def test_statistics_of_a_checkpoint_without_their_age_are_mature():
    """With updates=0, the first batch would replace a loaded mean."""
    plain, model = made(LINEN), made(LINEN, estimator=KINDS["debiased"][0])
    loaded = jax.tree.map(lambda each: each + 3, plain.variables["batch_stats"])
    variables = model.variables | {"batch_stats": loaded}
    _, trained = model.apply(variables, BATCHES[0], **training("BatchNorm"))
    decay = KINDS["debiased"][0].decay
    expected = decay * loaded["mean"] + (1 - decay) * BATCHES[0].mean((0, 1))
    chex.assert_trees_all_close(trained["mean"], expected, rtol=1e-5)
    assert jnp.isinf(trained["updates"]).all()


def test_statistics_alone_are_refused_by_averages_of_all_batches():
    plain, model = made(LINEN), made(LINEN, estimator=jaxnorm.cumulative())
    variables = model.variables | {"batch_stats": plain.variables["batch_stats"]}
    with pytest.raises(ValueError, match=r"'updates', is missing.*set 'updates' to their"):
        model.apply(variables, BATCHES[0], **training("BatchNorm"))
    model.apply(variables, BATCHES[0], use_running_average=True)


@each_api
def test_features_on_two_axes_have_states_of_their_shape(api):
    model = api.model(
        api.ours.BatchNorm, BATCHES[0], 24, axis=(0, 2), estimator=KINDS["debiased"][0]
    )
    _, variables = steps(model, BATCHES[:1])
    kept = arrays(variables["batch_stats"])
    expected = BATCHES[0].mean(1)
    chex.assert_trees_all_close(kept["mean"].reshape(4, 6), expected, rtol=1e-5)
    assert kept["updates"].shape == kept["mean"].shape


def test_counters_that_start_at_0_need_not_be_in_a_checkpoint():
    plain, guarded = made(LINEN), made(LINEN, estimator=KINDS["guarded"][0])
    variables = guarded.variables | {"batch_stats": plain.variables["batch_stats"]}
    y, unchanged = guarded.apply(variables, BATCHES[0], use_running_average=True)
    assert set(unchanged) == {"mean", "var"}
    chex.assert_trees_all_equal(y, plain(BATCHES[0], use_running_average=True))
    _, trained = guarded.apply(variables, BATCHES[0], **training("BatchNorm"))
    assert int(trained["skipped"]) == 0


def test_training_without_updates_needs_no_statistics():
    model = made(LINEN)
    variables = {"params": model.variables["params"]}
    y, _ = model.apply(variables, BATCHES[0], use_running_average=False, update=False)
    expected = model(BATCHES[0], use_running_average=False)
    chex.assert_trees_all_close(y, expected, rtol=1e-6)


def test_steps_that_are_missing_are_refused_where_they_count():
    """At step 0, the limits would allow no correction."""
    plain = made(LINEN)
    model = LINEN.model(LINEN.ours.BatchRenorm, BATCHES[0], 6)
    variables = model.variables | {"batch_stats": plain.variables["batch_stats"]}
    model.apply(variables, BATCHES[0], use_running_average=True)
    with pytest.raises(ValueError, match="without 'steps', by which its limits grow"):
        model.apply(variables, BATCHES[0], use_running_average=False)


@each_api
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_estimator_is_refused(api):
    with pytest.raises(TypeError, match=r"estimator=0.9, but an Estimator.*ema\(0.99\)"):
        made(api, estimator=0.9)(BATCHES[0], use_running_average=True)

    class Own(jaxnorm.Estimator):
        def init(self, shape, dtype=jnp.float32):
            return {"median": jnp.zeros(shape), "scale": jnp.ones(shape)}

    with pytest.raises(ValueError, match=r"\['median', 'scale'\].*needs mean and var"):
        made(api, estimator=Own())(BATCHES[0], use_running_average=True)


@each_api
def test_batch_renormalisation_has_no_ghosts(api):
    with pytest.raises(ValueError, match="ghost_size=2, but batch renormalisation"):
        api.model(api.ours.BatchRenorm, BATCHES[0], 6, ghost_size=2)(
            BATCHES[0], use_running_average=True
        )


class TestEquality:
    """Norms with equal arguments are equal, so that they share compiled programs."""

    def norms(self):
        yield jx.BatchNorm(6, rngs=nnx.Rngs(0))
        yield jx.BatchNorm(6, estimator=KINDS["accumulating"][0], rngs=nnx.Rngs(0))
        yield jx.BatchRenorm(6, rngs=nnx.Rngs(0))

    def test_nnx_graphs_are_equal_and_models_can_be_averaged(self):
        for one, other in zip(self.norms(), self.norms(), strict=True):
            assert nnx.graphdef(one) == nnx.graphdef(other)
            mean = jax.tree.map(lambda a, b: (a + b) / 2, one, other)
            assert type(mean) is type(one)

    def test_they_can_be_pickled(self):
        for norm in self.norms():
            again = pickle.loads(pickle.dumps(norm))
            assert nnx.graphdef(again) == nnx.graphdef(norm)

    def test_linen_modules_are_equal(self):
        estimator = jaxnorm.skip_nonfinite(jaxnorm.ema(0.9, debias=True))
        same = jaxnorm.skip_nonfinite(jaxnorm.ema(0.9, debias=True))
        one, other = (jn.BatchRenorm(estimator=each) for each in (estimator, same))
        assert (one, hash(one)) == (other, hash(other))
        assert pickle.loads(pickle.dumps(one)) == one

    def test_a_momentum_set_later_counts(self):
        norm = jx.BatchNorm(6, rngs=nnx.Rngs(0))
        norm.momentum = 0.0
        norm(BATCHES[0])
        chex.assert_trees_all_close(norm.mean[...], BATCHES[0].mean((0, 1)), rtol=1e-5)
