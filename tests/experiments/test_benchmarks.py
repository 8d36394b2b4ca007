"""The benchmarks: they compare equal work, and report what they measured."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments import __main__ as listing
from experiments.benchmarks import environment, timing

PEERS = ("haiku", "equinox", "keras", "torch")
SMALL = ["--quick", "--dtype", "float32", "--shapes", "4x3x3x2"]


def test_every_round_calls_each_once_in_an_order_of_its_own():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abcd"}
    seconds = timing.interleaved(calls, rounds=20)
    rounds = [tuple(order[start : start + 4]) for start in range(0, len(order), 4)]
    assert len(rounds) == 20 + timing.WARM_UP
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 5
    assert all(each.shape == (20,) and (each > 0).all() for each in seconds.values())


def test_the_time_is_that_of_the_call():
    def spin():
        return sum(range(200_000))

    seconds = timing.interleaved(
        {"once": spin, "four times": lambda: [spin() for _ in range(4)]}, rounds=9
    )
    medians = {name: np.median(each) for name, each in seconds.items()}
    assert 2.5 < medians["four times"] / medians["once"] < 6


def test_a_process_without_the_environment_starts_again_with_it():
    assert environment.missing(environment.REQUIRED) == {}
    other = environment.REQUIRED | {"KERAS_BACKEND": "torch"}
    assert environment.missing(other) == {"KERAS_BACKEND": "jax"}
    program = (
        "import sys; from experiments.benchmarks import command, main; import os;"
        "command.main = lambda arguments: print(os.environ['KERAS_BACKEND'], arguments);"
        "main(['x'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment.REQUIRED,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "jax ['x']"
    outside = {key: each for key, each in os.environ.items() if key != "KERAS_BACKEND"}
    command = [sys.executable, "-m", "experiments", "benchmarks", "--shapes", "3"]
    done = subprocess.run(command, env=outside, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)  # status is handed on


def test_it_is_listed_without_importing_it(capsys):
    assert listing.main([]) == 0
    assert "flax, haiku, equinox, keras, torch" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["3", "4x0x2", "4xa", "-1x4", "1x4"])
def test_shapes_without_a_variance_are_refused(shape, tmp_path, capsys):
    from experiments.benchmarks import command

    assert command.main([f"--shapes={shape}", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --shapes {shape}: ")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_missing_peer_is_refused_with_its_mend(monkeypatch, tmp_path, capsys):
    from experiments.benchmarks import command

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main([*SMALL, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: flax is not installed; pip install -e '.[benchmarks]'\n"
    )


def program_of(name, mode, inputs, dtype="float32"):
    from experiments.benchmarks import batch_norm, programs, torch_programs

    if name == "torch":
        return torch_programs.program(batch_norm.torch_forward, mode, inputs, dtype)
    layer = batch_norm.LAYERS[name](inputs, dtype)
    return programs.program(layer, mode, inputs, dtype)


IMPLEMENTATIONS = [
    "jaxnorm",
    "flax",
    *(pytest.param(name, marks=pytest.mark.peer) for name in PEERS),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def name(request, need, lenient):
    need(request.param)
    return request.param


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (12, 3)])
def test_every_implementation_does_all_of_the_same_work(name, shape):
    """Or the benchmark would compare what cannot be compared."""
    from experiments.benchmarks.layers import EPSILON, MOMENTUM, Inputs
    from tests import oracle

    inputs = Inputs.draw(shape, "float32")
    reduced, features = tuple(range(len(shape) - 1)), (len(shape) - 1,)
    count, mean, var = oracle.moments(inputs.x, reduced)
    given = (inputs.x, inputs.scale, inputs.bias, inputs.g)
    fixed = {"features": features, "epsilon": EPSILON}
    trained = oracle.norm_by_own_moments(*given, reduced=reduced, weights=None, **fixed)
    evaluated = oracle.norm_by_given_moments(
        *given, mean=inputs.mean, var=inputs.var, **fixed
    )
    # torch alone takes the variance of the population that the batch is drawn from.
    n = float(np.ravel(count)[0])
    var = var * n / (n - 1) if name == "torch" else var
    updated = [
        MOMENTUM * old + (1 - MOMENTUM) * new.reshape(-1)
        for old, new in ((inputs.mean, mean), (inputs.var, var))
    ]
    expected = {
        "eval-forward": (evaluated.y, None, None, None, None, None),
        "train-forward": (trained.y, None, None, None, *updated),
        "backward": (None, *trained[1:], None, None),
        "forward-backward": (*trained, *updated),
    }
    for mode, each in expected.items():
        program = program_of(name, mode, inputs)
        for got, want in zip(program.read(program.call()), each, strict=True):
            assert (got is None) == (want is None), mode
            if want is not None:
                close(got, want)


def test_what_is_normalised_in_bfloat16_stays_bfloat16(name):
    """A float32 result would be more bytes than the others write."""
    from experiments.benchmarks.layers import Inputs

    inputs = Inputs.draw((64, 4, 4, 3), "bfloat16")
    result = program_of(name, "forward-backward", inputs, "bfloat16").call()
    y, dx = (result[0], result[1][0]) if name == "torch" else (result["y"], result["dx"])
    assert all(str(each.dtype).endswith("bfloat16") for each in (y, dx))
    for mode in ("train-forward", "eval-forward", "backward"):
        program_of(name, mode, inputs, "bfloat16").call()


def test_the_copy_is_one():
    import jax.numpy as jnp

    from experiments.benchmarks import programs

    x = jnp.ones((64, 64))
    made, _ = programs.compiled(jnp.copy, x)
    y = made(x)
    assert y.unsafe_buffer_pointer() != x.unsafe_buffer_pointer()
    assert " copy(" in made.as_text()


@pytest.mark.peer
@pytest.mark.usefixtures("lenient")
def test_a_run_is_reported_and_goes_on_where_it_was_stopped(
    tmp_path, monkeypatch, capsys, need
):
    need(*PEERS)
    from experiments.benchmarks import cases, command, ops

    measure, measured = cases.measure, []

    def stop(case, rounds, **others):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(case)
        return measure(case, rounds, **others)

    monkeypatch.setattr(cases, "measure", stop)
    arguments = [*SMALL, "--out", str(tmp_path)]
    assert command.main(arguments) == 130
    assert "the same command resumes" in capsys.readouterr().err
    monkeypatch.setattr(cases, "measure", measure)
    assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "resuming after 2 of 5 steps" in shown
    assert "cannot take part" not in shown
    assert 10_000 < (tmp_path / "figure.png").stat().st_size < 150_000

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["settings"]["cores"] >= 1
    by_shape = result["measurements"]["batch_norm"]["float32"]
    assert list(by_shape) == ["4x3x3x2", "8x16x16x3"]
    assert list(by_shape["4x3x3x2"]) == list(ops.MODES[:-1])
    assert list(result["settings"]["peers"]) == list(PEERS)
    assert result["notes"] == []
    take_part = ["copy", "jaxnorm", "flax", *PEERS]
    for figures in by_shape["4x3x3x2"].values():
        assert list(figures) == take_part
        check(figures)
    check(by_shape["8x16x16x3"]["training-step"])
    kept = by_shape["4x3x3x2"]["backward"]["jaxnorm"]["residual_ratio"]
    assert 1 <= kept < 5

    assert command.main(arguments) == 0
    assert "finished already" in capsys.readouterr().out
    assert command.main([*arguments, "--modes", "backward"]) == 2
    assert "holds a run that differs" in capsys.readouterr().err


def check(figures):
    """Every figure is finite and positive; only temporaries may be none."""
    for name, each in figures.items():
        for figure, value in each.items():
            assert np.isfinite(value), (name, figure)
            assert value > 0 or figure == "temporary_bytes", (name, figure)
        assert each["lower_quartile"] <= each["milliseconds"] <= each["upper_quartile"]
    ours, flax = (figures[name]["milliseconds"] for name in ("jaxnorm", "flax"))
    assert figures["flax"]["jaxnorm_ratio"] == pytest.approx(ours / flax)


@pytest.mark.peer
@pytest.mark.usefixtures("lenient")
def test_who_cannot_take_part_is_recorded_and_shown_with_the_reason(
    tmp_path, monkeypatch, capsys, need
):
    need(*PEERS[:-1])
    from experiments.benchmarks import command, ops, torch_programs

    def refuse(inputs, dtype):
        raise TypeError("not today\nnor tomorrow")

    monkeypatch.setitem(ops.OPS["batch_norm"].layers, "haiku", refuse)
    monkeypatch.setattr(torch_programs, "absence", lambda: "torch is away")
    modes = ["--modes", "eval-forward", "train-forward"]
    arguments = [*SMALL, *modes, "--out", str(tmp_path)]
    said = [
        "torch cannot take part: torch is away",
        "haiku, batch_norm in float32, cannot take part: not today",
    ]
    for _ in range(2):  # measured, then shown again
        assert command.main(arguments) == 0
        assert capsys.readouterr().out.rstrip().splitlines()[-3:-1] == said
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["notes"] == said
    for figures in result["measurements"]["batch_norm"]["float32"]["4x3x3x2"].values():
        assert not {"haiku", "torch"} & set(figures)
