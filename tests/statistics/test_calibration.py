"""Calibration: statistics that match the current network, in both APIs."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxnorm
import jaxnorm.linen as jn
import jaxnorm.nnx as jx

pytestmark = pytest.mark.usefixtures("lenient")
RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(2, 3, (n, 3)).astype(np.float32) for n in (16, 16, 8)]
EVERYTHING = np.concatenate(BATCHES)


class LinenModel(nn.Module):
    """Two norms, with a dense layer and a relu between them."""

    @nn.compact
    def __call__(self, x, train, update=None, estimator=None):
        x = jn.BatchNorm(estimator=estimator)(x, train=train, update=update)
        x = nn.relu(nn.Dense(4)(x))
        return jn.BatchNorm(estimator=estimator)(x, train=train, update=update)


class NnxModel(nnx.Module):
    """The same model in NNX."""

    def __init__(self, **options):
        rngs = nnx.Rngs(0)
        self.first = jx.BatchNorm(3, **options, rngs=rngs)
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        self.second = jx.BatchNorm(4, **options, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.dense(self.first(x))))


MODEL = LinenModel()
VARIABLES = MODEL.init(jax.random.key(0), BATCHES[0], train=False)


def apply(variables, x, **call):
    return MODEL.apply(variables, x, **({"train": True} | call), mutable=["batch_stats"])


def measured(variables, *, behind_batches):
    """The moments of both norms' inputs over all batches, straight from the equations."""
    kernel, bias = variables["params"]["Dense_0"].values()
    running = variables["batch_stats"]["BatchNorm_0"]

    def hidden(x):
        mean, var = (
            (x.mean(0), x.var(0)) if behind_batches else (running["mean"], running["var"])
        )
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) @ kernel + bias, 0)

    second = np.concatenate([hidden(x) for x in BATCHES])
    return {
        f"BatchNorm_{i}": {"mean": x.mean(0), "var": x.var(0, ddof=1)}
        for i, x in enumerate((EVERYTHING, second))
    }


def close(got, want):
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("behind", ["batch", "running"])
def test_linen_measures_every_norm_over_all_batches(behind):
    call = {} if behind == "batch" else {"train": False, "update": True}
    before = jax.tree.map(np.array, VARIABLES)
    calibrated = jaxnorm.calibrate(
        lambda variables, x: apply(variables, x, **call),
        VARIABLES,
        iter(BATCHES),
        progress=False,
    )
    expected = measured(VARIABLES, behind_batches=behind == "batch")
    close(calibrated["batch_stats"], expected)
    chex.assert_trees_all_equal(calibrated["params"], VARIABLES["params"])
    chex.assert_trees_all_equal(before, VARIABLES)


@pytest.mark.parametrize("behind", ["batch", "running"])
def test_a_linen_model_is_called_as_it_names_its_flag(behind):
    before = jax.tree.map(np.array, VARIABLES)
    calibrated = jn.calibrate(MODEL, VARIABLES, BATCHES, behind=behind, progress=False)
    close(calibrated["batch_stats"], measured(VARIABLES, behind_batches=behind == "batch"))
    chex.assert_trees_all_equal(calibrated["params"], VARIABLES["params"])
    chex.assert_trees_all_equal(before, VARIABLES)


def test_a_linen_model_is_called_as_it_is_told():
    def call(model, batch, train):
        return model(2 * batch["image"], train=train)

    batches = [{"image": x / 2} for x in BATCHES]
    calibrated = jn.calibrate(MODEL, VARIABLES, batches, call=call, progress=False)
    close(calibrated["batch_stats"], measured(VARIABLES, behind_batches=True))


def test_a_linen_norm_that_may_not_be_updated_is_refused():
    def call(model, batch, train):
        return model(batch, use_running_average=not train)

    norm = jn.BatchNorm(update=False)
    variables = norm.init(jax.random.key(0), BATCHES[0], use_running_average=True)
    before = jax.tree.map(np.array, variables)
    with pytest.raises(ValueError, match="constructed with update=False"):
        jn.calibrate(norm, variables, BATCHES, call=call, progress=False)
    chex.assert_trees_all_equal(before, variables)


@pytest.mark.parametrize("calibrate", [jn.calibrate, jx.calibrate])
def test_behind_anything_else_is_refused(calibrate, unchecked):
    with pytest.raises(ValueError, match="'batch' or 'running'"):
        calibrate(nn.Module(), *[{}] * (calibrate is jn.calibrate), [], behind="both")


@pytest.mark.parametrize("behind", ["batch", "running"])
def test_nnx_measures_what_linen_does(behind):
    model = NnxModel()
    params = VARIABLES["params"]["Dense_0"]
    model.dense.kernel[...], model.dense.bias[...] = params["kernel"], params["bias"]
    model.eval()
    graph = nnx.graphdef(model)
    jx.calibrate(model, iter(BATCHES), behind=behind, progress=False)
    expected = measured(VARIABLES, behind_batches=behind == "batch")
    for i, norm in enumerate((model.first, model.second)):
        close({"mean": norm.mean[...], "var": norm.var[...]}, expected[f"BatchNorm_{i}"])
    # The mode is unchanged, and the collectors are removed.
    assert nnx.graphdef(model) == graph


@pytest.mark.slow
def test_passes_behind_running_statistics_make_one_norm_after_another_right():
    """After as many passes as norms, all statistics match evaluation."""

    def behind_running(variables, x):
        return apply(variables, x, train=False, update=True)

    variables = VARIABLES
    for _ in range(2):
        variables = jaxnorm.calibrate(behind_running, variables, BATCHES, progress=False)
    again = jaxnorm.calibrate(behind_running, variables, BATCHES, progress=False)
    close(again["batch_stats"], variables["batch_stats"])
    y = MODEL.apply(variables, EVERYTHING, train=False)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0, ddof=1)[y.std(0) > 0.1], 1, rtol=1e-3)


@pytest.mark.slow
def test_stopped_and_resumed_or_merged_it_is_the_same():
    whole = jaxnorm.collect_moments(apply, VARIABLES, BATCHES, progress=False)
    some = jaxnorm.collect_moments(apply, VARIABLES, BATCHES[:1], progress=False)
    rest = jaxnorm.collect_moments(apply, VARIABLES, BATCHES[1:], progress=False)
    resumed = jaxnorm.collect_moments(
        apply, VARIABLES, BATCHES[1:], start=some, progress=False
    )
    close(resumed, whole)  # up to rounding, since other pairs are merged
    merged = jax.tree.map(
        jaxnorm.merge, some, rest, is_leaf=lambda each: isinstance(each, jaxnorm.Moments)
    )
    close(merged, whole)
    close(
        jaxnorm.with_moments(VARIABLES, merged),
        jaxnorm.calibrate(apply, VARIABLES, BATCHES, progress=False),
    )


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(jaxnorm.population(), marks=pytest.mark.slow),
        jaxnorm.skip_nonfinite(jaxnorm.accumulate(jaxnorm.ema(0.9, debias=True), 2)),
    ],
)
@pytest.mark.slow
def test_any_estimator_reads_what_was_calibrated(estimator):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return jn.BatchRenorm(estimator=estimator)(x, train=train)

    model = Model()
    variables = model.init(jax.random.key(0), BATCHES[0], train=False)

    def train(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    _, updates = train(variables, 100 + BATCHES[0])
    trained = variables | updates
    calibrated = jaxnorm.calibrate(train, trained, BATCHES, progress=False)
    y = model.apply(calibrated, EVERYTHING, train=False)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0, ddof=1), 1, rtol=1e-4)
    chex.assert_trees_all_equal_structs(calibrated, trained)
    norm = NnxModel(estimator=estimator)
    jx.calibrate(norm, BATCHES, progress=False)
    read = estimator.read(
        jaxnorm.statistics.state_names.unnamed(
            {name: getattr(norm.first, name)[...] for name in _names(estimator)},
            estimator.init((3,)),
        )
    )
    np.testing.assert_allclose(read.mean, EVERYTHING.mean(0), rtol=1e-5)
    np.testing.assert_allclose(read.var, EVERYTHING.var(0, ddof=1), rtol=1e-5)


def _names(estimator):
    return jaxnorm.statistics.state_names.named(estimator.init(()))


def test_after_averaging_weights_evaluation_is_right_again():
    """The running statistics belong to weights that the network no longer has."""
    other = MODEL.init(jax.random.key(1), BATCHES[0], train=False)["params"]
    averaged = jax.tree.map(lambda a, b: (a + 3 * b) / 4, VARIABLES["params"], other)
    stale = jaxnorm.calibrate(apply, VARIABLES, BATCHES, progress=False) | {
        "params": averaged
    }
    fresh = jaxnorm.calibrate(apply, stale, BATCHES, progress=False)

    def off(variables):
        return np.abs(MODEL.apply(variables, EVERYTHING, train=False).mean(0)).max()

    assert off(fresh) < 0.05 < 0.3 < off(stale)


def test_a_bar_is_shown_on_stderr_or_not(capsys):
    jx.calibrate(NnxModel(), BATCHES, progress=False)
    assert capsys.readouterr() == ("", "")
    jaxnorm.calibrate(apply, VARIABLES, BATCHES)
    out, err = capsys.readouterr()
    assert out == ""
    assert "calibrating" in err
    assert "3/3" in err


@pytest.mark.slow
def test_layers_under_a_scan_are_calibrated_each():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(nn.Dense(3)(jn.BatchNorm(train=True)(x))), None

    layers = nn.scan(
        Block,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=2,
    )()
    variables = layers.init(jax.random.key(0), BATCHES[0], None)

    def train(variables, x):
        return layers.apply(variables, x, None, mutable=["batch_stats"])

    calibrated = jaxnorm.calibrate(train, variables, BATCHES, progress=False)
    mean = calibrated["batch_stats"]["BatchNorm_0"]["mean"]
    assert mean.shape == (2, 3)
    close(mean[0], EVERYTHING.mean(0))
    assert np.abs(mean[1]).max() > 0


def stays(function, *arguments, error=ValueError, match):
    model = arguments[0] if isinstance(arguments[0], nnx.Module) else None
    before = nnx.clone(model) if model else None
    with pytest.raises(error, match=match):
        function(*arguments, progress=False)
    if model:
        chex.assert_trees_all_equal(nnx.state(model), nnx.state(before))
        assert nnx.graphdef(model) == nnx.graphdef(before)


def test_what_cannot_be_calibrated_is_refused_and_nothing_changed():
    calibrate = jaxnorm.calibrate
    stays(calibrate, apply, VARIABLES, [], match="at BatchNorm_0, BatchNorm_1: no batch")
    stays(jx.calibrate, NnxModel(), [], match="nothing was measured at first, second")
    params = {"params": VARIABLES["params"]}
    stays(calibrate, apply, params, BATCHES, match=r"no batch norm.*\['params'\]")
    stays(
        jx.calibrate,
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)),
        BATCHES,
        match="Linear contains no",
    )

    def evaluate(variables, x):
        return apply(variables, x, train=False)

    stays(calibrate, evaluate, VARIABLES, BATCHES, match="an apply that trains")

    def only_outputs(variables, x):
        return MODEL.apply(variables, x, train=False)

    stays(calibrate, only_outputs, VARIABLES, BATCHES, error=TypeError, match="mutable=")
    wrong = [np.ones((4, 5), np.float32)]
    stays(jx.calibrate, NnxModel(), wrong, match="num_features=5")


def test_a_norm_of_flax_is_named():
    model = nn.Sequential([nn.BatchNorm(use_running_average=False)])
    variables = model.init(jax.random.key(0), BATCHES[0])

    def train(variables, x):
        return model.apply(variables, x, mutable=["batch_stats"])

    with pytest.raises(ValueError, match=r"at layers_0.*not from jaxnorm"):
        jaxnorm.calibrate(train, variables, BATCHES, progress=False)


class Mixed(nn.Module):
    """A norm beside statistics that belong to none, and modules called mean and var."""

    @nn.compact
    def __call__(self, x, train):
        self.variable("batch_stats", "seen", jnp.zeros, ())
        mean = nn.SpectralNorm(nn.Dense(3), name="mean")(x, update_stats=train)
        var = jn.BatchNorm(name="var")(x, train=train)
        return jn.BatchNorm()(mean + var, train=train)


def test_what_is_of_no_norm_is_left_alone():
    model = Mixed()
    variables = model.init(jax.random.key(0), BATCHES[0], train=False)

    def train(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    some = jaxnorm.collect_moments(train, variables, BATCHES[:1], progress=False)
    merged = jax.tree.map(
        jaxnorm.merge, some, some, is_leaf=lambda each: isinstance(each, jaxnorm.Moments)
    )
    calibrated = jaxnorm.with_moments(variables, merged)["batch_stats"]
    close(calibrated["var"]["mean"], BATCHES[0].mean(0))
    for name in ("seen", "mean"):
        chex.assert_trees_all_equal(calibrated[name], variables["batch_stats"][name])
    with pytest.raises(ValueError, match="from another network than the variables"):
        jaxnorm.collect_moments(apply, VARIABLES, BATCHES, start=some, progress=False)
    with pytest.raises(ValueError, match="from another network than the variables"):
        jaxnorm.with_moments(VARIABLES, some)


SPOILT = [BATCHES[0], np.where(BATCHES[1] > 5, np.nan, BATCHES[1]), BATCHES[2]]


def test_a_batch_that_is_not_finite_is_refused_or_left_out_by_a_guard():
    stays(jaxnorm.calibrate, apply, VARIABLES, SPOILT, match="BatchNorm_0.* are not finite")
    stays(jx.calibrate, NnxModel(), SPOILT, match="at first, second are not finite")
    guarded = NnxModel(estimator=jaxnorm.skip_nonfinite(jaxnorm.ema(0.9)))
    jx.calibrate(guarded, SPOILT, progress=False)
    finite = np.concatenate([BATCHES[0], BATCHES[2]])
    close(guarded.first.mean[...], finite.mean(0))
    assert int(guarded.first.skipped[...]) == 0


def test_nothing_else_of_an_nnx_model_is_changed():
    """Such as the steps of a renorm, and the keys of dropout."""
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        jx.BatchRenorm(3, rngs=rngs),
        nnx.BatchNorm(3, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
        jx.BatchNorm(3, rngs=rngs),
    )
    before = nnx.clone(model)
    jx.calibrate(model, BATCHES, progress=False)
    for i in (0, 1, 3):
        for norm in (model.layers[i], before.layers[i]):
            norm.mean[...], norm.var[...] = jnp.zeros(3), jnp.ones(3)
    chex.assert_trees_all_equal(nnx.state(model), nnx.state(before))


def test_what_was_pending_is_dropped_and_what_is_calibrated_is_no_start():
    pending = jaxnorm.accumulate(jaxnorm.ema(0.9), 2)
    model = NnxModel(estimator=pending)
    model(1000 + BATCHES[0])
    jx.calibrate(model, BATCHES, progress=False)
    assert int(model.first.batches[...]) == 0
    assert not model.first.pending_count[...].any()
    debiased = NnxModel(estimator=jaxnorm.ema(0.9, debias=True))
    jx.calibrate(debiased, BATCHES, progress=False)
    debiased(1000 + BATCHES[0])
    assert (debiased.first.mean[...] < 600).all()  # the first of all would replace it


@pytest.mark.slow
def test_it_may_be_called_under_jit():
    def calibrate(variables):
        return jaxnorm.calibrate(apply, variables, BATCHES, progress=False)

    close(jax.jit(calibrate)(VARIABLES), calibrate(VARIABLES))


# Sorted samples of mean 100·σ: what a batch adds to the mean is near the mean's rounding.
SORTED = np.sort(np.random.default_rng(1).normal(100, 1, (2**13, 1)).astype(np.float32), 0)


@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_many_sorted_batches_cost_no_accuracy(api):
    """Merged one by one, they would be 1 % off at 2¹⁷ batches, and over 200 % at 2²⁰."""
    batches = np.split(SORTED, 2**11)
    if api == "linen":
        model = jn.BatchNorm(train=True)
        variables = calibrated_linen(model, batches)["batch_stats"]
        mean, var = variables["mean"], variables["var"]
    else:
        norm = jx.BatchNorm(1, rngs=nnx.Rngs(0))
        jx.calibrate(norm, batches, unbiased=False, progress=False)
        mean, var = norm.mean[...], norm.var[...]
    exact = SORTED.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=2e-7)
    np.testing.assert_allclose(var, exact.var(0), rtol=5e-7)


def calibrated_linen(model, batches):
    variables = model.init(jax.random.key(0), batches[0])
    return jaxnorm.calibrate(
        lambda variables, x: model.apply(variables, x, mutable=["batch_stats"]),
        variables,
        batches,
        unbiased=False,
        progress=False,
    )
