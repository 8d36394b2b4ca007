"""Every command refuses bad arguments and a failing machine in one line."""

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as root
from experiments.harness import status
from experiments.harness.listing import EXAMPLES, NAMES, STUDIES, TOOLS, module

ROOT = Path(__file__).parents[2]
HUGE = "9" * 5000
# Commands that read a result, each with the arguments before its path.
READERS = {
    "experiments.device_check.report": [],
    "experiments.benchmarks.page": ["benchmarks"],
}


def run(name, arguments, capsys):
    """Returns the status of a command and what it wrote to stderr; it must end."""
    try:
        found = root.main([name, *arguments])
    except SystemExit as error:  # argparse's
        found = error.code
    return found, capsys.readouterr().err


BAD = (
    ["--out", ""],
    ["--out", " "],
    ["--seeds", HUGE],
    ["--seeds", "0"],
    ["--seeds", "-1"],
    ["--seeds", "1.5"],
    ["--seeds", "²"],
    ["--epochs", "99999999999999999999"],
    ["--budget", "1e999"],
    ["--seed", "-1"],
    ["--data-dir", ""],
    ["--no-such-option"],
)
each_bad = pytest.mark.parametrize("arguments", BAD, ids=lambda each: "_".join(each)[:30])


def is_one_line(error):
    lines = [line for line in error.splitlines() if "error: " in line]
    # argparse repeats what it does not know, however long it is.
    short = all(len(line) < 300 or "unrecognized" in line for line in lines)
    return len(lines) == 1 and short and "Traceback" not in error


@pytest.mark.parametrize("name", [each for each in NAMES if "benchmarks" not in each])
@each_bad
def test_bad_arguments_are_refused_in_a_line(
    name, arguments, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, error = run(name, arguments, capsys)
    assert found == 2
    assert is_one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in NAMES if "benchmarks" in each])
@pytest.mark.parametrize("arguments", [BAD[0], BAD[-1]], ids=["out", "unknown"])
def test_bad_arguments_are_refused_by_commands_that_start_anew(name, arguments, tmp_path):
    """The benchmarks start Python again, with another environment."""
    process = python(
        "-m", "experiments", name, *arguments, cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert is_one_line(error.decode())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*STUDIES, *EXAMPLES])
@pytest.mark.parametrize("kind", ["no folder", "a file", "empty"])
def test_a_folder_without_the_data_is_refused(name, kind, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "data"
    if kind == "a file":
        there.touch()
    elif kind == "empty":
        there.mkdir()
    found, error = run(name, ["--data-dir", str(there)], capsys)
    assert found == 2
    if name != "diagnose":  # which has data of its own
        assert "--data-dir takes a folder" in error
    assert "Traceback" not in error
    assert error.count("error: ") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "3",
        "{",
        b"\xff\xfe",
        {"measurements": "x"},
        {"settings": "x"},
        {"settings": {"experiment": "device_check"}},
        {"settings": {"experiment": "device_check"}, "measurements": "x"},
        {
            "settings": {"experiment": "device_check"},
            "versions": {},
            "device": "d",
            "notes": [],
            "measurements": {"times": [{"op": 3}], "table": 5},
        },
        {"settings": {"experiment": "benchmarks"}, "measurements": {"layer_norm": 3}},
        {"settings": {"experiment": "benchmarks"}, "measurements": [1, 2]},
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_is_no_result_is_refused(name, content, capsys, tmp_path):
    path = tmp_path / "result.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    command = importlib.import_module(name)
    assert command.main([*READERS[name], str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error


@pytest.mark.parametrize("name", READERS)
def test_a_result_that_is_not_there_is_refused(name, capsys, tmp_path):
    command = importlib.import_module(name)
    for path in (tmp_path, tmp_path / "none.json"):
        assert command.main([*READERS[name], str(path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_a_failing_machine_is_told_in_a_line(capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/figure.png")

    assert status.exit_status(full) == 1
    assert capsys.readouterr().err == (
        "error: results/figure.png: No space left on device.\n"
    )


def python(*arguments, cwd=None, **environment):
    """Starts a command whose output may be closed, as by `| head`."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


PRINTS = (
    "import sys; from experiments.harness.status import exit_status;"
    "sys.exit(exit_status(lambda: [print('σ² = γ·1 ' * 9) for _ in range({})]))"
)


def test_a_closed_pipe_ends_a_command_quietly():
    process = python("-c", PRINTS.format(100_000))
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == status.CLOSED_PIPE
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_of_ascii_is_written_to():
    process = python("-c", PRINTS.format(1), PYTHONIOENCODING="ascii")
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    assert output.startswith(rb"\u03c3\xb2 = \u03b3\xb71")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed_network", "deploy", *TOOLS])
def test_help_is_printed_in_ascii_and_to_a_closed_pipe(name):
    process = python("-m", "experiments", name, "--help", PYTHONIOENCODING="ascii")
    output, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, b"")
    assert output.startswith(b"usage: ")


@pytest.mark.slow
def test_a_full_disk_is_told_in_a_line(tmp_path):
    """A study on a file system of 64 kB, which root can make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a small file system")
    try:
        arguments = ["contours", "--quick", "--out", str(disk / "run")]
        process = python("-m", "experiments", *arguments)
        _, error = process.communicate(timeout=300)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    assert process.returncode in (1, 2)
    assert b"Traceback" not in error
    assert b"No space left" in error or b"space" in error


def test_every_command_is_named():
    assert {module(name) for name in NAMES} >= {"experiments.all", "experiments.report"}
