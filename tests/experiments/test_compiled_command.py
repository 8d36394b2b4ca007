"""Compiling for accelerators: what is requested, refused, counted and shown."""

import json
import os
import re
import subprocess
import sys

import pytest

from experiments import __main__ as listing
from experiments.benchmarks import environment, page
from experiments.benchmarks.compiled import tables as shown
from experiments.benchmarks.tables import markdown


def figures(read, kept=1.0, temporaries=0.25):
    program = {"kernels": 3, "read": read, "written": 1.0, "temporaries": temporaries}
    return {"kept": kept, "fwd": program, "both": program | {"kernels": 7}, "bwd": program}


def exchanged(count, numbers):
    figures = {"collectives": count, "numbers": numbers}
    return {"fwd": figures, "both": figures}


MEASURED = {
    "passes": {
        "gpu": {
            "layer_norm": {
                "8x4": {
                    "bfloat16": {"jaxnorm": figures(1.0), "flax": figures(3.0, 6.0)},
                    "float32": {"jaxnorm": figures(9.0), "flax": figures(0.0)},
                }
            },
            "conv": {"2x8x8x4": {"bfloat16": {"jaxnorm": figures(2.0)}}},
        }
    },
    "collectives": {
        platform: {"batch_norm": {"jaxnorm": exchanged(6, 4321), "flax": exchanged(1, 128)}}
        for platform in ("gpu", "cpu")
    },
}


def test_it_is_listed_without_importing_it(capsys):
    assert listing.main([]) == 0
    assert re.search(r"benchmarks\.compiled +What XLA makes", capsys.readouterr().out)


def test_the_tables_have_both_libraries_in_a_cell():
    passes, collectives = shown.tables(MEASURED)
    assert markdown(passes).splitlines()[2:] == [
        "| layer_norm | 8x4 | bfloat16 "
        "| 2.0/4.0 | 2.0/4.0 | 2.0/4.0 | 7/7 | 0.2/0.2 | 1.0/6.0 |",
        "| layer_norm | 8x4 | float32 "
        "| 10.0/1.0 | 10.0/1.0 | 10.0/1.0 | 7/7 | 0.2/0.2 | 1.0/1.0 |",
        "| conv | 2x8x8x4 | bfloat16 | 3.0/– | 3.0/– | 3.0/– | 7/– | 0.2/– | 1.0/– |",
    ]
    assert markdown(collectives).splitlines()[2:] == [
        f"| batch_norm | batch | {machine} | 6 (4,321)/1 (128) | 6 (4,321)/1 (128) |"
        for machine in ("H100", "host CPU")
    ]


def test_programs_that_were_not_chosen_are_a_dash():
    some = {name: each for name, each in figures(1.0).items() if name in ("kept", "fwd")}
    measured = {"passes": {"tpu": {"mlp": {"8x4": {"float32": {"flax": some}}}}}}
    (table,) = shown.tables(measured)
    assert list(table.rows[0][3:]) == ["–/2.0", "–/–", "–/–", "–/–", "–/–", "–/1.0"]


def test_the_figure_shows_ratios_and_cuts_what_is_long(tmp_path):
    from experiments.benchmarks.compiled import figure

    programs = ("fwd", "both", "bwd")
    assert figure.ratios(MEASURED) == {
        ("gpu", "bfloat16"): {"layer_norm 8x4": dict.fromkeys(programs, 0.5)},
        ("gpu", "float32"): {"layer_norm 8x4": dict.fromkeys(programs, 10.0)},
    }
    figure.draw(MEASURED, tmp_path / "figure.png")
    assert 5_000 < (tmp_path / "figure.png").stat().st_size < 150_000


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "compiled.json"
    content = {"settings": {"experiment": "compiled"}, "measurements": MEASURED}
    path.write_text(json.dumps(content))
    return path


def test_the_tables_are_written_between_the_marks_of_a_page(tmp_path, result, capsys):
    there = tmp_path / "page.md"
    there.write_text("before\n<!-- compiled -->\nold\n<!-- /compiled -->\nafter\n")
    for _ in range(2):  # writing twice gives the same page
        assert page.main(["compiled", str(result), "--write", str(there)]) == 0
        written = there.read_text()
        assert written.startswith("before\n<!-- compiled -->\n\n**H100, jaxnorm/flax: ")
        assert written.endswith(" |\n\n<!-- /compiled -->\nafter\n")
        assert "old" not in written
    there.write_text("<!-- /compiled --> <!-- compiled -->")
    assert page.main(["compiled", str(result), "--write", str(there)]) == 2
    assert "has no <!-- compiled --> … <!-- /compiled -->" in capsys.readouterr().err
    assert page.main(["compiled", str(result), "--write", str(tmp_path / "no.md")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_environment_keeps_the_flags_that_are_set():
    required = environment.compiling({"XLA_FLAGS": "--xla_one"})
    assert required["XLA_FLAGS"] == f"--xla_one {environment.HOST_DEVICES}"
    assert environment.missing(required, environment.compiling(required)) == {}
    assert environment.compiling({})["XLA_FLAGS"] == environment.HOST_DEVICES


@pytest.fixture
def nothing_installed(monkeypatch):
    from experiments.benchmarks.compiled import targets

    monkeypatch.setattr(targets, "_is_installed", lambda module: False)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("asked", [[], ["--platform", "gpu"], ["--platform", "tpu"]])
def test_without_a_compiler_one_line_says_what_to_install(asked, tmp_path, capsys):
    from experiments.benchmarks.compiled import command

    assert command.main([*asked, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for platform, extra in (("gpu", "cuda"), ("tpu", "accelerators")):
        is_meant = not asked or platform in asked
        assert (f"pip install -e '.[{extra}]'" in error) == is_meant
    assert not (tmp_path / "run").exists()


def test_a_compiler_of_another_version_is_refused_with_its_remedy(monkeypatch):
    from experiments.benchmarks.compiled import targets

    monkeypatch.setattr(targets, "_is_installed", lambda module: True)
    monkeypatch.setattr(targets.importlib.metadata, "version", lambda name: "0.9")
    reason = targets.absence("gpu")
    assert reason is not None
    assert reason.startswith("jax-cuda13-plugin is 0.9 and jax ")
    assert "; pip install jax-cuda13-plugin==" in reason


def test_a_compiler_that_fails_is_absent_with_the_reason(monkeypatch):
    from experiments.benchmarks.compiled import targets

    def fail(platform):
        raise RuntimeError("libdevice not found\nstack")

    monkeypatch.setattr(targets, "_is_installed", lambda module: True)
    monkeypatch.setattr(targets, "_try", fail)
    expected = (
        "libtpu cannot compile (libdevice not found); pip install -e '.[accelerators]'"
    )
    assert targets.absence("tpu") == expected


def test_every_op_takes_its_shapes_and_others():
    from experiments.benchmarks.compiled import planning, programs

    for name, op in programs.OPS.items():
        given = ["x".join(map(str, each)) for each in op.shapes]
        assert planning.shapes_of(name, given) == planning.shapes_of(name, None)
    assert planning.shapes_of("batch_norm", ["16x64"]) == [(16, 64)]


@pytest.mark.parametrize(
    ("op", "shape"), [("conv", "8x4"), ("instance_norm", "8x64"), ("group_norm", "4x2x48")]
)
def test_a_shape_that_an_op_does_not_take_is_refused(op, shape, tmp_path, capsys):
    from experiments.benchmarks.compiled import command

    assert command.main(["--ops", op, "--shapes", shape, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --shapes {shape}: ")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.fixture
def compilers(monkeypatch):
    """Uses the host in place of the accelerators, which need not be installed."""
    from experiments.benchmarks.compiled import targets

    monkeypatch.setattr(targets, "absence", lambda platform: None)
    monkeypatch.setattr(targets, "versions", lambda platforms: {})
    for platform in targets.PLATFORMS:
        monkeypatch.setitem(targets.DEVICES, platform, targets.DEVICES["cpu"])
    targets.devices.cache_clear()
    yield
    targets.devices.cache_clear()


@pytest.mark.usefixtures("lenient", "compilers")
def test_a_run_is_counted_shown_and_shown_again(tmp_path, capsys):
    from experiments.benchmarks.compiled import command

    options = ["--platform", "tpu", "--dtypes", "float32", "--out", str(tmp_path)]
    one = [*options, "--ops", "layer_norm", "--shapes", "16x64", "--devices", "1"]
    assert command.main(one) == 0
    assert "tpu layer_norm 16x64 float32 jaxnorm" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    found = result["measurements"]["passes"]["tpu"]["layer_norm"]["16x64"]["float32"]
    for library in ("jaxnorm", "flax"):
        assert found[library]["kept"] >= 1
        assert found[library]["fwd"]["read"] >= 1 <= found[library]["fwd"]["written"]
        assert found[library]["both"]["read"] > found[library]["fwd"]["read"]
    assert (tmp_path / "figure.png").exists()
    assert command.main(one) == 0
    assert "finished already" in capsys.readouterr().out
    assert command.main([*one, "--publish"]) == 2
    assert "--publish: the run is without platforms gpu, ops " in capsys.readouterr().err


@pytest.mark.usefixtures("lenient", "compilers")
def test_kernels_are_listed_and_nothing_is_kept(tmp_path, capsys):
    from experiments.benchmarks.compiled import command

    chosen = [
        "--ops",
        "rms_norm",
        "--shapes",
        "16x64",
        "--programs",
        "fwd",
        "--libs",
        "flax",
    ]
    run = [*chosen, "--platform", "gpu", "--kernels", "--out", str(tmp_path / "run")]
    assert command.main(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gpu rms_norm 16x64 bfloat16 flax fwd"
    assert any("bf16[16,64]" in line and "→" in line for line in lines[1:])
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("lenient")
def test_collectives_over_the_host_are_those_that_flax_needs():
    from experiments.benchmarks.compiled import measuring, programs

    shape = programs.OPS["batch_norm"].shapes[0]
    case = measuring.Case("cpu", "batch_norm", shape, "float32", "flax")
    assert measuring.collectives(case)["fwd"] == {
        "collectives": 1,
        "numbers": 2 * shape[-1],
    }


@pytest.mark.usefixtures("compilers")
def test_blocks_alone_have_nothing_to_exchange(tmp_path, capsys):
    from experiments.benchmarks.compiled import command

    run = ["--ops", "mlp", "--devices", "8", "--out", str(tmp_path / "run")]
    assert command.main(run) == 2
    assert "--devices 8: no op of mlp is split" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_publishing_puts_result_figure_and_tables_into_docs(tmp_path, result):
    from types import SimpleNamespace
    from typing import Any

    from experiments.benchmarks.compiled import publishing

    docs = tmp_path / "docs"
    (docs / "numerics").mkdir(parents=True)
    (docs / "numerics.md").write_text("<!-- compiled --><!-- /compiled -->")
    (tmp_path / "figure.png").write_bytes(b"picture")
    run: Any = SimpleNamespace(result=result, figure=tmp_path / "figure.png")
    publishing.publish(run, docs)
    published = page.read("compiled", docs / "numerics" / "compiled.json")
    assert published["measurements"] == MEASURED
    assert (docs / "numerics" / "compiled.png").read_bytes() == b"picture"
    for table in shown.tables(MEASURED):
        assert markdown(table) in (docs / "numerics.md").read_text()


def test_what_is_read_again_has_the_order_of_the_run():
    from experiments.benchmarks.compiled import planning

    parts = {path: planning.Part(tuple(path), dict) for path in ("ba", "ab", "bc", "aa")}
    found = planning.arranged({"a": {"a": 1, "b": 2}, "b": {"a": 3, "c": 4}}, parts)
    assert list(found) == ["b", "a"]
    assert list(found["a"].items()) == [("b", 2), ("a", 1)]


@pytest.mark.slow
def test_a_process_starts_again_with_the_environment():
    outside = {key: each for key, each in os.environ.items() if key != "JAX_PLATFORMS"}
    command = [sys.executable, "-m", "experiments", "benchmarks.compiled", "--shapes", "3"]
    done = subprocess.run(command, env=outside, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --shapes 3: ")
