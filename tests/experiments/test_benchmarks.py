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
OPS = ("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm")
ONE = ["--quick", "--dtype", "float32", "--ops", "batch_norm"]
SMALL = [*ONE, "--shapes", "4x3x3x2"]


def test_every_round_calls_each_once_in_an_order_of_its_own():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abcd"}
    seconds = timing.interleaved(calls, rounds=20)
    rounds = [tuple(order[start : start + 4]) for start in range(0, len(order), 4)]
    assert len(rounds) == 20 + timing.WARM_UP
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 5
    assert all(each.shape == (20,) and (each > 0).all() for each in seconds.values())


def test_the_time_is_that_of_the_call(monkeypatch):
    clock = [0.0]

    def takes(seconds):
        clock[0] += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    calls = {"one": lambda: takes(1.0), "four": lambda: takes(4.0)}
    seconds = timing.interleaved(calls, rounds=9)
    np.testing.assert_array_equal(seconds["one"], 1.0)
    np.testing.assert_array_equal(seconds["four"], 4.0)


@pytest.mark.slow
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
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)  # the status is passed on


def test_it_is_listed_without_importing_it(capsys):
    assert listing.main([]) == 0
    assert "flax, haiku, equinox, keras, torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "op"),
    [
        *((shape, "batch_norm") for shape in ("3", "4x0x2", "4xa", "-1x4", "1x4")),
        ("4x1", "layer_norm"),
        ("4x1", "rms_norm"),
        ("4x3x3x48", "group_norm"),
        ("4x32", "group_norm"),
        ("4x1x2", "instance_norm"),
    ],
)
def test_shapes_without_a_variance_are_refused(shape, op, tmp_path, capsys):
    from experiments.benchmarks import command

    arguments = [f"--shapes={shape}", "--ops", op, "--out", str(tmp_path)]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --shapes {shape}: ")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_shape_is_refused_for_the_ops_chosen_only():
    from experiments.benchmarks import command

    assert command.shape("1x4", ["layer_norm", "rms_norm"]) == (1, 4)
    assert command.shape("2x3x64", OPS) == (2, 3, 64)


def test_every_op_has_shapes_that_it_takes():
    from experiments.benchmarks import ops

    assert tuple(ops.OPS) == OPS
    for name, op in ops.OPS.items():
        assert list(op.shapes) == ["cpu", "accelerator", "quick"], name
        assert all(op.pooled(each) > 1 for shapes in op.shapes.values() for each in shapes)
        assert set(op.passes) <= set(ops.MODES), name


def test_a_missing_peer_is_refused_with_its_mend(monkeypatch, tmp_path, capsys):
    from experiments.benchmarks import command

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main([*SMALL, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: flax is not installed; pip install -e '.[benchmarks]'\n"
    )


def program_of(op, name, mode, inputs, dtype="float32"):
    from experiments.benchmarks import ops, programs

    if name == "torch":
        return ops.OPS[op].torch(mode, inputs, dtype)
    layer = ops.OPS[op].layers[name](inputs, dtype)
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


def same(outputs, expected, mode):
    """Checks that exactly the expected results exist, and that they are close."""
    for got, want in zip(outputs, expected, strict=True):
        assert (got is None) == (want is None), mode
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5, err_msg=mode)


def own_moments(inputs, reduced, features):
    """Returns a norm's expected results for inputs with moments over these axes."""
    from experiments.benchmarks.layers import EPSILON
    from tests.support import oracle

    return oracle.norm_by_own_moments(
        inputs.x,
        inputs.params["scale"],
        inputs.params["bias"],
        inputs.g,
        reduced=reduced,
        features=features,
        epsilon=EPSILON,
        weights=None,
    )


def layer_norm(inputs):
    last = (inputs.x.ndim - 1,)
    return own_moments(inputs, last, last)


def instance_norm(inputs):
    *positions, last = range(1, inputs.x.ndim)
    return own_moments(inputs, tuple(positions), (last,))


def group_norm(inputs):
    """Same as the mean over positions and features, with the groups on their own axis."""

    def split(each):
        return each.reshape(*each.shape[:-1], 32, -1)

    params = {name: split(each) for name, each in inputs.params.items()}
    last = inputs.x.ndim
    found = own_moments(
        inputs._replace(x=split(inputs.x), g=split(inputs.g), params=params),
        (*range(1, last - 1), last),
        (last - 1, last),
    )
    return found._replace(
        y=found.y.reshape(inputs.x.shape),
        dx=found.dx.reshape(inputs.x.shape),
        dscale=found.dscale.reshape(-1),
        dbias=found.dbias.reshape(-1),
    )


def rms_norm(inputs):
    """Same as layer norm of (x, −x): its mean is 0, its variance is taken about 0."""
    x, g, scale = inputs.x, inputs.g, inputs.params["scale"]
    doubled = inputs._replace(
        x=np.concatenate([x, -x], -1),
        g=np.concatenate([g, 0 * g], -1),
        params={"scale": np.concatenate([scale] * 2), "bias": np.zeros(2 * len(scale))},
    )
    found = layer_norm(doubled)
    (y, _), (positive, negative), (dscale, _) = (
        np.split(each, 2, -1) for each in (found.y, found.dx, found.dscale)
    )
    return found._replace(y=y, dx=positive - negative, dscale=dscale, dbias=None)


STATELESS = [
    (layer_norm, (6, 5, 4)),
    (rms_norm, (6, 5, 4)),
    (group_norm, (3, 2, 4, 64)),
    (instance_norm, (3, 5, 4, 3)),
]


@pytest.mark.parametrize(("expected", "shape"), STATELESS)
def test_every_implementation_without_a_state_does_all_of_the_same_work(
    name, expected, shape
):
    from experiments.benchmarks import ops

    op = ops.OPS[expected.__name__]
    inputs = op.draw(shape, "float32")
    y, *gradients = expected(inputs)[:4]
    none = [None] * len(gradients)
    given = {
        "train-forward": (y, *none),
        "backward": (None, *gradients),
        "forward-backward": (y, *gradients),
    }
    assert list(given) == list(op.passes)
    for mode, each in given.items():
        program = program_of(expected.__name__, name, mode, inputs)
        same(program.read(program.call()), (*each, None, None), mode)


@pytest.mark.parametrize(("expected", "shape"), STATELESS)
def test_what_errors_are_taken_against_is_the_formula_in_float64(expected, shape):
    from experiments.benchmarks import ops

    op = ops.OPS[expected.__name__]
    inputs = op.draw(shape, "float32")
    want = expected(inputs)
    exact = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(op.reference(inputs, train=True), want.y, **exact)
    np.testing.assert_allclose(op.reference_dx(inputs), want.dx, **exact)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (12, 3)])
def test_every_implementation_does_all_of_the_same_work(name, shape):
    """Otherwise the benchmark would compare unequal work."""
    from experiments.benchmarks.layers import EPSILON, MOMENTUM, Inputs
    from tests.support import oracle

    inputs = Inputs.draw(shape, "float32")
    reduced, features = tuple(range(len(shape) - 1)), (len(shape) - 1,)
    count, mean, var = oracle.moments(inputs.x, reduced)
    trained = own_moments(inputs, reduced, features)
    scale, bias = inputs.params.values()
    evaluated = oracle.norm_by_given_moments(
        inputs.x, scale, bias, inputs.g,
        mean=inputs.statistics[0], var=inputs.statistics[1],
        features=features, epsilon=EPSILON,
    )  # fmt: skip
    # torch alone updates its running variance with the unbiased variance of the batch.
    n = float(np.ravel(count)[0])
    var = var * n / (n - 1) if name == "torch" else var
    updated = [
        MOMENTUM * old + (1 - MOMENTUM) * new.reshape(-1)
        for old, new in zip(inputs.statistics, (mean, var), strict=True)
    ]
    expected = {
        "eval-forward": (evaluated.y, None, None, None, None, None),
        "train-forward": (trained.y, None, None, None, *updated),
        "backward": (None, *trained[1:4], None, None),
        "forward-backward": (*trained[:4], *updated),
    }
    for mode, each in expected.items():
        program = program_of("batch_norm", name, mode, inputs)
        same(program.read(program.call()), each, mode)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_what_is_normalised_in_bfloat16_stays_bfloat16(name, op):
    """A float32 result would write more bytes than the other libraries do."""
    from experiments.benchmarks import ops

    row = ops.OPS[op]
    inputs = row.draw((8, 4, 4, 64), "bfloat16")
    program = program_of(op, name, "forward-backward", inputs, "bfloat16")
    result = program.call()
    y, dx = (result[0], result[1][0]) if name == "torch" else (result["y"], result["dx"])
    assert all(str(each.dtype).endswith("bfloat16") for each in (y, dx))
    read = program.read(result)
    np.testing.assert_allclose(read.y, row.reference(inputs, train=True), atol=0.1)
    np.testing.assert_allclose(read.dx, row.reference_dx(inputs), atol=0.1)
    others = {"eval-forward", "train-forward", "backward"} if op == "batch_norm" else ()
    for mode in others:
        program_of(op, name, mode, inputs, "bfloat16").call()


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
    """All figures must be finite and positive, except that temporaries may be 0."""
    for name, each in figures.items():
        for figure, value in each.items():
            assert np.isfinite(value), (name, figure)
            assert value > 0 or figure == "temporary_bytes", (name, figure)
        assert each["lower_quartile"] <= each["milliseconds"] <= each["upper_quartile"]
    ours, flax = (figures[name]["milliseconds"] for name in ("jaxnorm", "flax"))
    assert figures["flax"]["jaxnorm_ratio"] == pytest.approx(ours / flax)


@pytest.mark.peer
@pytest.mark.usefixtures("lenient")
def test_a_run_of_all_ops_has_all_libraries_in_its_tables(tmp_path, capsys, need):
    need(*PEERS)
    from experiments.benchmarks import command

    chosen = ["--quick", "--dtype", "float32", "--modes", "train-forward"]
    assert command.main([*chosen, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    overview = shown.partition("all ops, ")[2].splitlines()
    rows = [line.split()[:2] for line in overview if "_norm " in line]
    assert rows == [[op, "float32"] for op in OPS]
    assert "group_norm float32 2x8x8x64 forward " in shown
    assert "batch_norm float32 8x14x14x32 train " in shown
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["notes"] == []
    assert set(result["measurements"]) == set(OPS)
    for op, by_dtype in result["measurements"].items():
        (figures,) = by_dtype["float32"].values()
        assert list(figures["train-forward"]) == ["copy", "jaxnorm", "flax", *PEERS]
        for name, each in figures["train-forward"].items():
            assert name == "copy" or each["largest_error"] < 1e-5, (op, name)


def test_a_panel_has_the_shapes_of_one_op_dtype_and_mode(tmp_path):
    from experiments.benchmarks import cases, figure, ops

    drawn = cases.cases(OPS, ("float32", "bfloat16"), ops.MODES, [], "cpu")
    panels = figure.panels(drawn)
    assert list(panels) == list(OPS)
    for op, row in panels.items():
        assert [mode for _, mode in row] == ["train-forward", "forward-backward"] * 2
        for (dtype, mode), group in row.items():
            assert all((each.dtype, each.mode) == (dtype, mode) for each in group)
            assert [each.shape for each in group] == list(ops.OPS[op].shapes["cpu"])
    shape = (len(drawn), len(cases.IMPLEMENTATIONS), len(cases.FIGURES))
    times = np.random.default_rng(0).lognormal(0, 0.3, shape)
    figure.draw(drawn, cases.nested(drawn, times), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size < 150_000


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
