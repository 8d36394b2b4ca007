"""The device check, rehearsed on a CPU."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.device_check import (
    checks,
    command,
    compiling,
    correctness,
    programs,
    report,
    shapes,
    timing,
)
from experiments.device_check.budget import Budget
from experiments.harness.status import Refused
from tests.support.cases import NORMS, Case, Layout

pytestmark = pytest.mark.usefixtures("lenient")

# Packages that a borrowed machine may lack.
WITHOUT = ("pytest", "optax", "matplotlib", "orbax", "sklearn", "hypothesis", "beartype")
PROGRAM = (
    "import runpy, sys;"
    f"sys.modules.update(dict.fromkeys({WITHOUT!r}));"
    "runpy.run_module('experiments.device_check', run_name='__main__')"
)
DEVICES = Path(__file__).parents[2] / "docs/numerics/devices"
NORM = NORMS[0]
CASE = Case(NORM, Layout((64, 3), -1), "float32", "none")
TIMED = shapes.Timed("layer_norm", (8, 16), "float32", "forward")


@pytest.mark.slow
def test_a_rehearsal_goes_through_all_parts(tmp_path):
    arguments = ["--rehearse", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    result = json.loads(text, parse_constant=pytest.fail)  # JSON has no NaN
    assert set(result["measurements"]) == {*report.PARTS, "times", "networks"}
    assert result["settings"] == {
        "experiment": "device_check",
        "rehearsal": True,
        "budget": command.BUDGET,
    }
    assert result["device"]
    assert result["notes"] == []
    for table in report.tables(result["measurements"]):
        assert table.title in done.stdout
        assert report.markdown(table) in report.page(result)


@pytest.mark.parametrize("path", DEVICES.glob("*.json"), ids=lambda each: each.stem)
def test_the_page_of_a_device_is_its_result(path):
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    result = report.read(path)
    assert not result["settings"]["rehearsal"]
    assert text.partition("<!-- result -->\n")[2] == report.page(result) + "\n"


def test_without_a_gpu_it_is_refused_in_a_line(capsys, tmp_path):
    assert command.main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(each in error for each in ("cpu", "GPU", "--rehearse"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_the_budget_does_not_allow_is_left_out_and_noted(tmp_path, capsys):
    assert command.main(["--rehearse", "--budget", "1e-6", "--out", str(tmp_path)]) == 0
    result = report.read(tmp_path / "result.json")
    assert result["measurements"] == {}
    cases = [str(each) for each in shapes.timed(shapes.REHEARSED)]
    for name in (*cases, "ResNet-50 4x32x32x3 bfloat16"):
        assert f"Left out: {name}: {compiling.LATE}." in result["notes"]
    assert all(note in capsys.readouterr().out for note in result["notes"][:1])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_budget_is_a_number_of_seconds(seconds, capsys):
    with pytest.raises(SystemExit):
        command.main(["--budget", seconds])
    assert "seconds above 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_part_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    def fail():
        raise ValueError("as it must")

    monkeypatch.setattr(command, "CHECKS", {"table": fail})
    monkeypatch.setattr(shapes, "REHEARSED", {"layer_norm": ((8, 16),)})
    monkeypatch.setattr(shapes, "DTYPES", ("float32",))
    monkeypatch.setattr(command.steps, "rehearsed", lambda dtype: [])
    assert command.main(["--rehearse", "--out", str(tmp_path)]) == 1
    result = report.read(tmp_path / "result.json")
    assert len(result["measurements"]["times"]) == len(shapes.MODES)
    assert result["notes"] == ["Failed: table: ValueError: as it must."]


def test_it_cannot_be_written_there(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert command.main(["--rehearse", "--out", str(file)]) == 2
    assert "--out" in capsys.readouterr().err


def verdicts(norm, make):
    """Returns whether the checks that `make` returns for this norm pass."""
    return [row["passed"] for row in checks.run(make(norm), Budget(100))]


def with_output(change):
    """Returns batch norm with a changed output."""
    return dataclasses.replace(
        NORM,
        function=lambda *given, **options: (
            change(NORM.function(*given, **options)[0]),
            None,
        ),
    )


def of_table(norm):
    return [correctness.of_case(dataclasses.replace(CASE, norm=norm))]


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda y: y, True),
        (lambda y: y * (1 + 1e-4), False),
        (lambda y: y.at[3, 1].set(jnp.nan), False),
        (lambda y: y - 1e-3 * jax.lax.stop_gradient(y), False),
        # Correct except for its gradients:
        (lambda y: y + 1e-3 * (y - jax.lax.stop_gradient(y)), False),
    ],
)
def test_a_wrong_norm_is_found(change, passes):
    assert verdicts(with_output(change), of_table) == [passes]


def fast(x, statistics, scale, bias, **options):
    """Computes the variance as E[x²] − E[x]², which cancels."""
    mean = jnp.mean(x, 0)
    var = jnp.mean(jnp.square(x), 0) - jnp.square(mean)
    return (x - mean) * jax.lax.rsqrt(jnp.abs(var) + 1e-3) * scale + bias, statistics


def of_long_sums(norm):
    return [each for each in correctness.stable((norm,)) if "-float32-none" in each.name][
        :2
    ]


def test_a_norm_that_cancels_is_found():
    assert verdicts(NORM, of_long_sums) == [True, True]
    assert verdicts(dataclasses.replace(NORM, function=fast), of_long_sums) == [
        False,
        False,
    ]


def test_an_error_of_a_check_is_no_pass():
    def refuse(*given, **options):
        raise NotImplementedError("not on this device\nat all")

    (row,) = checks.run(of_table(dataclasses.replace(NORM, function=refuse)), Budget(100))
    assert not row["passed"]
    assert row["error"] == "NotImplementedError: not on this device"


def test_the_share_of_what_is_allowed():
    assert checks.share([1.0, 2.0], [1.0, 2.5], 1.0) == 0.5
    assert checks.share([0.0], [0.0], 0.0) == 0.0
    assert checks.share([1e-9], [0.0], 0.0) == np.inf
    assert checks.share([np.nan], [0.0], 1.0) == np.inf


@pytest.mark.parametrize("name", ["copy", "jaxnorm", "flax"])
def test_nothing_that_is_timed_can_be_left_out(name):
    """Each array has its own output, which reuses the memory of an earlier one."""
    copies = 3
    work = programs.works(TIMED)[name]
    source = programs.side_by_side(work, copies)
    compiled = source.compile()
    text = compiled.as_text()
    arrays = [(jax.random.normal(jax.random.key(i), TIMED.shape),) for i in range(copies)]
    shared = programs.noise(work.shared)
    outputs = len(jax.tree.leaves(source.arguments[2]))
    assert text.splitlines()[0].count("may-alias") == outputs
    results = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan), source.arguments[2])
    found = compiled(shared, arrays, results)
    for own, got in zip(arrays, found, strict=True):
        want = work.function(*shared, *own)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


def test_the_amount_of_work_follows_the_bytes():
    effort = timing.Effort(rounds=1, call=1e-3, turn=1e-2, bandwidth=1e9)
    small, large = (TIMED._replace(shape=(n, 1024)) for n in (4, 4096))
    assert effort.copies(small) == timing.MOST_COPIES
    assert effort.copies(large) == 1
    assert effort.calls(large, 2) == 3
    assert effort.calls(small, 2) == 19  # 10 ms / (16 · 4·1024·4 · 2 bytes / 1 GB/s)


def test_the_time_of_one_is_without_calling():
    seconds, nothing = np.array([1.1, 2.1, 4.1]), np.array([0.1, 0.1])
    median, lower, upper = timing.microseconds(seconds, nothing, 10)
    np.testing.assert_allclose((median, lower, upper), (2e5, 1.5e5, 3e5))


ROW = {
    "op": "layer_norm",
    "shape": "8192x4096",
    "dtype": "bfloat16",
    "mode": "forward",
    "bytes": 2**26,
    "least_passes": 2,
    "side_by_side": 7,
    "microseconds": {"copy": [50, 50, 50], "jaxnorm": [50, 49, 51], "flax": [75, 74, 76]},
    "microseconds_to_call": {"copy": 2, "jaxnorm": 2, "flax": 2},
    "temporary_bytes": {"copy": 0, "jaxnorm": 0, "flax": 0},
}


def test_passes_and_shares_are_those_of_the_copy():
    (row,) = report.times([ROW]).rows
    assert row[4:13] == (
        *("50.0", "50.0", "75.0", "0.667", "2", "2.00", "3.00"),
        *("100 %", "67 %"),
    )
    assert row[-1] == ""


def test_times_that_say_little_are_marked():
    slow = ROW | {"microseconds_to_call": {"copy": 45, "jaxnorm": 2, "flax": 2}}
    assert report.times([slow]).rows[0][-1] == "calls as slow?"
    assert report.times([ROW | {"bytes": 2**20}]).rows[0][-1] == "cached?"


def test_a_result_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "result.json"
    for text in ("{", '{"settings": {"experiment": "accuracy"}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(Refused, match=r"result\.json"):
            report.read(path)
    assert report.main([str(path)]) == 2
