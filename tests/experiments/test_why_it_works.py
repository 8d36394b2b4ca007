"""The measures of a loss along its gradient, the noise, and the verdicts' thresholds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import why_it_works
from experiments.studies.why_it_works.landscape import STEPS, landscape
from experiments.studies.why_it_works.noisy import NoisyBatchNorm


def test_smoothness_of_a_quadratic_is_that_of_its_formula():
    """L = ½hθ²: after a step of η the gradient is (1 − ηh)g, and L is (1 − ηh)²L₀."""
    h, rate, theta = 3.0, 0.1, 2.0
    params = {f"Dense_{layer}": {"kernel": jnp.float32(theta)} for layer in range(2)}
    found = landscape(
        lambda params: h * params["Dense_0"]["kernel"] ** 2 / 2, params, rate, tuple(params)
    )
    sizes = rate * np.asarray(STEPS)
    losses = h * theta**2 / 2 * (1 - sizes * h) ** 2
    np.testing.assert_allclose(found["range"], np.ptp(losses), rtol=1e-5)
    np.testing.assert_allclose(found["change"], sizes.max() * h, rtol=1e-5)


def test_covariate_shift_is_that_of_its_definition(rng):
    """For three layers, compared with gradients after each update written out."""
    layers = ("Dense_0", "Dense_1", "Dense_2")
    x = jnp.asarray(rng.normal(size=(7, 4)))
    params = {
        **{name: {"kernel": jnp.asarray(rng.normal(size=(4, 4)))} for name in layers},
        "Scale_0": {"scale": jnp.asarray(rng.normal(size=4))},
    }

    def loss(params):
        first, second, third = (params[name]["kernel"] for name in layers)
        y = (
            jnp.tanh(jnp.tanh(x @ first * params["Scale_0"]["scale"][None]) @ second)
            @ third
        )
        return jnp.mean(y**2)

    found = landscape(loss, params, 0.1, layers)
    gradient = jax.grad(loss)(params)
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    for place, below in enumerate((("Dense_0", "Scale_0"), (*layers[:2], "Scale_0"))):
        name = layers[place + 1]
        later = jax.grad(loss)(params | {each: stepped[each] for each in below})
        g, h = (np.asarray(each[name]["kernel"]).ravel() for each in (gradient, later))
        np.testing.assert_allclose(found["ics"][place], np.linalg.norm(g - h), rtol=1e-4)
        cosine = g @ h / (np.linalg.norm(g) * np.linalg.norm(h))
        np.testing.assert_allclose(found["cosine"][place], cosine, rtol=1e-4)


@pytest.fixture
def noisy(rng):
    model, x = NoisyBatchNorm(True), jnp.asarray(rng.normal(size=(5000, 8)), jnp.float32)
    variables = NoisyBatchNorm(False).init(jax.random.key(0), x)

    def output(seed):
        rngs = {"noise": jax.random.key(seed)}
        return np.asarray(model.apply(variables, x, rngs=rngs, mutable=["batch_stats"])[0])

    return output


def test_noise_gives_each_unit_a_mean_and_a_deviation_of_its_own(noisy):
    mean, deviation = noisy(0).mean(0), noisy(0).std(0)
    assert np.abs(mean).max() < 0.55
    assert np.ptp(mean) > 0.2
    assert deviation.min() > 0.97
    assert deviation.max() < 1.3


def test_noise_is_drawn_anew(noisy):
    assert np.abs(noisy(0).mean(0) - noisy(1).mean(0)).max() > 0.1


def history(early=0.5, late=0.5, shift=0.9, deeper=1.1, plain=1.0, noisy=0.9):
    """Five seeds, given the ratios that the claims name and the losses at step 100."""
    found, rounds = {}, why_it_works.ROUNDS
    half = rounds // 2
    for rate in why_it_works.RATES:
        for norm, span, ics, loss in (
            ("plain", 1.0, 1.0, plain),
            ("batch_norm", [early] * half + [late] * half, shift, 0.1),
            ("noisy", 1.0, 1.0, noisy),
        ):
            by_layer = ics * np.array([2, 2, 2, 2 * deeper, 2]) / (8 + 2 * deeper) * 5
            found[why_it_works.trial_name(norm, rate)] = {
                "range": np.broadcast_to(span, (5, rounds)),
                "loss": np.full((5, rounds), loss),
                "ics": np.broadcast_to(by_layer, (5, rounds, 5)),
            }
    return found


@pytest.mark.parametrize(
    ("given", "failed"),
    [
        ({}, "blame"),
        ({"late": 0.51}, "range blame"),
        ({"early": 0.51, "late": 0.49}, "early blame"),
        ({"noisy": 1.0}, "noise"),
        ({"noisy": np.nan}, "noise blame"),
        ({"plain": np.nan}, "noise blame"),
        ({"shift": 1.1}, "blame shift"),
        ({"deeper": 0.9}, "blame depth depth_high"),
    ],
)
def test_verdicts_at_their_thresholds(given, failed):
    found = why_it_works.verdicts(history(**given))
    names = ("range", "early", "noise", "blame", "shift", "depth", "depth_high")
    claims = dict(zip(names, found, strict=True))
    assert [name for name, each in claims.items() if each.word != "PASS"] == failed.split()
