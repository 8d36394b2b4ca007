"""The main job, and rows 64 to 66 of the claims."""

import json
import signal
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnorm.linen as jn
from experiments.harness import data, options, study, training
from experiments.harness.runs import read_measurements, read_sealed
from experiments.models import ScaledDense, SeedNetwork, parameter_count
from experiments.studies import seed_network

pytestmark = pytest.mark.usefixtures("lenient")
SMALL = ["--data", "digits", "--seeds", "2", "--epochs", "2", "--batch-size", "400"]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_row_64_the_network_has_1541020_trainable_parameters():
    images = np.zeros((2, 784), np.float32)
    mnist = data.Dataset("none", (28, 28), images, np.arange(2), images, np.arange(2))
    assert SeedNetwork.widths == (1000, 500, 250, 250, 250, 10)
    assert parameter_count(SeedNetwork(), mnist) == 1_541_020


def test_row_65_adam_at_02_moves_the_first_weights_by_0007():
    layer, x = ScaledDense(5), jnp.ones((3, 784))
    params = layer.init(jax.random.key(0), x)["params"]
    assert float(params["v"].std()) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(
        layer.apply({"params": params}, x), x @ params["v"] / 28, rtol=1e-4, atol=1e-4
    )
    gradient = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x)))(params)
    adam = optax.adam(seed_network.RATE)
    update, _ = adam.update(gradient, adam.init(params))
    np.testing.assert_allclose(jnp.abs(update["v"]) / 28, 0.000714, rtol=1e-3)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.02), (15, 0.02), (16, 0.019765), (58, 0.009882), (99, 0.000235), (100, 0)],
)
def test_row_66_the_learning_rate_of_the_source(epoch, rate):
    assert float(seed_network.learning_rate(epoch, 100)) == pytest.approx(rate, abs=5e-7)


def test_row_66_the_batches_epochs_average_and_epsilon_of_the_source():
    chosen = options.parse(seed_network.parser(), [])
    assert (chosen.seeds, chosen.epochs, chosen.batch_size) == (5, 20, 120)
    assert options.parse(seed_network.parser(), ["--full"]).epochs == 100
    image = jnp.ones((4, 784))
    norms = []

    def record(call, arguments, keywords, context):
        if isinstance(context.module, jn.BatchNorm) and context.method_name == "__call__":
            norms.append((context.module.momentum, context.module.epsilon))
        return call(*arguments, **keywords)

    with nn.intercept_methods(record):
        SeedNetwork().init(jax.random.key(0), image, train=False)
    assert norms == [(0.99, 1e-10)] * 6  # on every layer, including the last


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.02), (16 * 33 - 1, 0.02), (16 * 33, 0.019765), (99 * 33, 0.000235)],
)
def test_row_66_the_schedule_counts_the_steps_of_an_epoch(step, rate):
    scheduled = seed_network.schedule(epochs=100, steps=33)(step)
    assert float(scheduled) == pytest.approx(rate, abs=5e-7)


def measured(early=3.0, final=1.0, gap=1.5, unsteadiness=1.5, seeds=5, epochs=20):
    """A history that is flat except for the values the claims use, in points."""
    plain = np.full((seeds, epochs), 0.80)
    running, batch = plain.copy(), plain.copy()
    batch[:, 0] += early / 100
    running[:, -1] += final / 100 + np.linspace(0, 1e-4, seeds)
    batch[:, -1] = running[:, -1] - gap / 100
    loss = np.ones((seeds, epochs))
    by = {"running": running, "batch": batch}
    by |= dict.fromkeys(("debiased", "warmed up", "calibrated"), batch)
    return {
        "plain": {"accuracy": plain, "loss": loss, "loss_sd": unsteadiness * loss},
        "batch_norm": {**by, "loss": loss, "loss_sd": loss},
    }


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (measured(early=3.01, gap=1.49), ["PASS", "PASS", "PASS", "PASS"]),
        (measured(early=2.99), ["FAIL", "PASS", "PASS", "PASS"]),
        (measured(final=-0.1), ["PASS", "FAIL", "PASS", "PASS"]),
        (measured(gap=1.51), ["PASS", "PASS", "FAIL", "PASS"]),
        (measured(gap=-1.51), ["PASS", "PASS", "FAIL", "PASS"]),
        (measured(unsteadiness=0.99), ["PASS", "PASS", "PASS", "FAIL"]),
        (measured(seeds=1), ["OPEN", "OPEN", "OPEN", "OPEN"]),
        (measured(unsteadiness=np.nan), ["PASS", "PASS", "PASS", "OPEN"]),
    ],
)
def test_the_thresholds_of_the_claims(history, words):
    history["batch_norm"]["batch"][:, 0] += 1e-9  # the threshold itself is not a float
    history["batch_norm"]["batch"][:, -1] += 1e-9
    assert [each.word for each in seed_network.verdicts(history)] == words


def test_the_decay_starts_after_15_percent_of_any_number_of_epochs():
    rates = [float(seed_network.learning_rate(epoch, 20)) for epoch in range(20)]
    assert rates[:4] == pytest.approx([0.02] * 4)
    assert rates[4] < 0.02
    assert rates[-1] == pytest.approx(0.02 / 17, rel=1e-5)


def test_arms_start_at_the_same_weights(digits):
    arms = seed_network.make_arms(digits, epochs=2, steps=3)
    plain, norm = (
        training.start(arm, digits.train_images, jax.random.key(0)).params
        for arm in arms.values()
    )
    for layer in range(6):
        name = f"ScaledDense_{layer}"
        chex.assert_trees_all_equal(plain[name], norm[name])
    assert set(plain) - set(norm) == {f"bias_{layer}" for layer in range(6)}
    assert set(norm) - set(plain) == {f"BatchNorm_{layer}" for layer in range(6)}


def assert_same_results(*folders):
    """Everything in the result except the run time."""
    first, second = (
        read_sealed(folder / "result.json") | {"seconds": 0} for folder in folders
    )
    assert first == second


@pytest.mark.slow
def test_the_main_job_on_digits_and_again_after_an_interrupt(tmp_path, capsys):
    """An uninterrupted run and one resumed in the middle of a seed give the same bits."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert seed_network.STUDY([*SMALL, "--out", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "digits: (1437, 64) to train, (360, 64) to test, 10 classes" in shown
    assert "821,020 parameters: batch_norm" in shown
    assert shown.count("points") >= 2
    assert str(whole / "figure.png") in shown.replace("\n", "")
    assert (whole / "figure.png").stat().st_size > 10_000

    result = json.loads((whole / "result.json").read_text())
    assert result["settings"]["data"]["train"] == [1437, 64]
    accuracy = np.array(result["measurements"]["batch_norm"]["batch"])
    assert accuracy.shape == (2, 2)
    assert (accuracy[:, -1] > 0.8).all()  # chance is .1
    assert result["verdicts"] == [
        each.as_dict()
        for each in seed_network.verdicts(read_measurements(whole / "result.json"))
    ]

    def interrupt(history, seed, epoch):
        if (seed, epoch) == (1, 0):
            raise KeyboardInterrupt
        return ""

    interrupted = seed_network.STUDY._replace(
        measure=study.compare_arms(seed_network.make_arms, "", interrupt)
    )
    assert interrupted([*SMALL, "--out", str(parts)]) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert not (parts / "result.json").exists()
    assert seed_network.STUDY([*SMALL, "--out", str(parts)]) == 0
    assert "resuming after 3 of 4 steps" in capsys.readouterr().out
    assert_same_results(parts, whole)

    assert seed_network.STUDY([*SMALL, "--out", str(whole)]) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupt_of_the_process_resumes_to_the_same_bits(tmp_path):
    """Sends Ctrl-C as a user would, on the packaged MNIST digits."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, "-u", "-m", "experiments", "seed_network", "--seeds", "1"]
    command += ["--epochs", "6", "--out"]
    subprocess.run([*command, whole], check=True)

    process = subprocess.Popen(
        [*command, parts], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "2/6" in line:  # early, before a busy machine finishes the run
            process.send_signal(signal.SIGINT)
            break
    assert "the same command resumes" in process.stdout.read()
    assert process.wait() == 130
    subprocess.run([*command, parts], check=True)
    assert_same_results(parts, whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", "nowhere"], "ubyte: no such file"),
        (["--batch-size", "1"], "one sample has no variance"),
        (["--batch-size", "5000"], "at most 1437, the number of training samples"),
    ],
)
def test_bad_options_give_one_line_and_status_2(arguments, message, tmp_path, capsys):
    base = [] if "--data-dir" in arguments else ["--data", "digits"]
    assert seed_network.STUDY([*base, *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unwritable_folder_is_found_before_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    untrained = seed_network.STUDY._replace(measure=None)  # would fail if called
    assert untrained([*SMALL, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written to" in capsys.readouterr().err
