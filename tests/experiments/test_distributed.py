"""Training in several processes: same numbers as one process, and no hanging."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.examples import distributed
from experiments.harness.runs import read_measurements

COMMAND = [sys.executable, "-m", "experiments", "distributed", "--data", "digits"]
SUPERVISE = "experiments.examples.distributed.command.supervise"  # starts the workers
LIMIT = 120  # seconds until a test fails
LONG = ["--epochs", "1000", "--devices", "1"]


@contextlib.contextmanager
def started(*options, **environment):
    """Runs a command beside the test; it ends with the test, and its workers with it."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, options)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process):
    """Returns the status of a command, and what it wrote to stdout and stderr."""
    output, error = process.communicate(timeout=LIMIT)
    return process.returncode, output, error


def workers(folder):
    """Returns the processes that a command with this --out has started, by ID."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,command="], capture_output=True, text=True
    ).stdout
    matched = re.findall(r"^ *(\d+) (.*--worker --process (\d+) .*)$", listed, re.MULTILINE)
    return {int(each): int(pid) for pid, line, each in matched if str(folder) in line}


def wait_for_an_epoch(process):
    for line in process.stdout:
        if "1/1000" in line:
            return
    pytest.fail(f"it ended before an epoch did: {process.stderr.read()}")


def wait_for_none(folder):
    start = time.monotonic()
    while workers(folder):
        assert time.monotonic() < start + LIMIT
        time.sleep(0.1)


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def short(folder, **options):
    """Starts a run of two steps in float64, without spending time on optimisation."""
    places = [f"--{name}={value}" for name, value in options.items()]
    quick = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return started(*places, "--epochs", 1, "--steps", 2, "--out", folder, **quick)


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_process_of_one(tmp_path):
    """Compares losses, accuracy, running statistics and parameters.

    Uses float64, except for batch norm's own variables, which are float32: the errors seen
    are 6e-9 in the losses and 4e-7 in scale and bias. In float32, a relu's input near 0 may
    round to either side; that gradient differs, and Adam's first steps have the same size
    for any gradient.
    """
    with (
        short(tmp_path / "two", processes=2, devices=2) as several,
        short(tmp_path / "one", processes=1, devices=1) as single,
    ):
        for process, where in ((several, "4 devices of 2 processes"), (single, "1 device")):
            status, output, error = finish(process)
            assert status == 0, error
            assert where in output
            assert "gloo" not in output.lower()
    two, one = (
        read_measurements(tmp_path / each / "result.json") for each in ("two", "one")
    )
    assert two["loss"].shape == (2,)
    assert len(two["statistics"]) == 6
    assert set(two) == {"loss", "accuracy", "statistics", "parameters"} == set(one)

    def compare(name, tolerance):
        flat, reference = (dict(leaves(each[name])) for each in (two, one))
        assert flat.keys() == reference.keys()
        for path, values in reference.items():
            np.testing.assert_allclose(
                flat[path], values, rtol=tolerance, atol=tolerance, err_msg=path
            )

    compare("loss", 1e-6)
    compare("accuracy", 1e-12)
    compare("statistics", 1e-5)
    compare("parameters", 1e-5)


def leaves(tree, path=""):
    """Yields each array with its path."""
    if isinstance(tree, dict):
        for name, each in tree.items():
            yield from leaves(each, f"{path}/{name}")
    else:
        yield path, tree


@pytest.mark.parametrize(
    ("process", "whom"),
    [
        (0, "for the other 1 of 2 processes"),
        (1, "for process 0, but nothing answers at"),
    ],
)
@pytest.mark.slow
def test_a_peer_that_does_not_come_is_named_in_time(process, whom, address, tmp_path):
    start = time.monotonic()
    options = ["--process", process, "--coordinator", address, "--timeout", 2]
    with started(*options, "--out", tmp_path) as command:
        status, _, error = finish(command)
    assert status == 2
    assert f"process {process} waited 2 s {whom}" in error
    assert "start 2 processes with --process 0 to --process 1, the same" in error
    assert f"--coordinator {address}" in error
    assert error.count("\n") == 1
    assert time.monotonic() < start + 60  # Python starts twice, plus 2 s


@pytest.mark.slow
def test_two_commands_must_be_alike(address, tmp_path):
    options = ["--devices", 1, "--coordinator", address, "--out", tmp_path]
    with (
        started(*options, "--process", 0, "--seed", 1) as first,
        started(*options, "--process", 1, "--seed", 2) as second,
    ):
        for status, _, error in (finish(first), finish(second)):
            assert status == 2
            assert error.startswith("error: processes 0 and 1 differ in their options")
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_ends_all_that_were_started_together(dying, tmp_path):
    with started(*LONG, "--out", tmp_path) as command:
        wait_for_an_epoch(command)
        os.kill(workers(tmp_path)[dying], signal.SIGKILL)
        status, _, error = finish(command)
    assert status == 2
    assert f"process {dying} of 2 was ended by SIGKILL, and so were the others" in error
    assert workers(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_process_that_dies_elsewhere_does_not_leave_the_other_waiting(
    dying, address, tmp_path
):
    """As on two machines: the survivor notices the silence within --timeout."""
    options = [*LONG, "--coordinator", address, "--timeout", 10]
    with (
        started(*options, "--process", 0, "--out", tmp_path / "0") as first,
        started(*options, "--process", 1, "--out", tmp_path / "1") as second,
    ):
        wait_for_an_epoch(first)
        (first, second)[dying].kill()  # its worker ends with it
        start = time.monotonic()
        status, _, error = finish((first, second)[1 - dying])
        assert time.monotonic() < start + 40
    assert status == 2
    assert f"process {1 - dying} of 2 lost another" in error
    wait_for_none(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_command(number, status, tmp_path):
    with started(*LONG, "--out", tmp_path) as command:
        wait_for_an_epoch(command)
        assert set(workers(tmp_path)) == {0, 1}
        command.send_signal(number)
        ended, _, error = finish(command)
    assert ended == status
    assert error == "interrupted; all 2 processes were ended, and nothing written.\n" * (
        number == signal.SIGINT
    )
    wait_for_none(tmp_path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--process", "1"], "--process 1: needs --coordinator HOST:PORT"),
        (["--process", "2", "--coordinator", "127.0.0.1:9"], "the IDs are 0 to 1"),
        (["--process", "1", "--coordinator", "here"], "here: is not HOST:PORT"),
        (["--process", "1", "--coordinator", "127.0.0.1:0"], "a port from 1 to 65535"),
        (["--process", "1", "--coordinator", "127.0.0.1:65536"], "a port from 1 to 65535"),
        (
            ["--process", "1", "--coordinator", "no.invalid:9"],
            "the host no.invalid cannot be found",
        ),
    ],
)
def test_bad_places_are_refused_before_anything_starts(
    options, message, monkeypatch, capsys
):
    monkeypatch.setattr(SUPERVISE, None)  # would fail if called
    assert distributed.main(options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(SUPERVISE, None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert distributed.main(["--process", "0", "--coordinator", place]) == 2
    assert (
        f"--coordinator {place}: process 0 cannot listen there" in capsys.readouterr().err
    )


@pytest.mark.parametrize("option", ["--process", "--processes", "--devices", "--timeout"])
def test_numbers_are_whole(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        distributed.main([option, "-1.5"])
    assert f"{option}: '-1.5' is not a whole number from" in capsys.readouterr().err


def test_a_batch_is_split_evenly(monkeypatch, capsys):
    monkeypatch.setattr(SUPERVISE, None)
    assert distributed.main(["--batch-size", "122"]) == 2
    assert capsys.readouterr().err == (
        "error: --batch-size 122: must be a multiple of 4, the number of devices that "
        "share a batch.\n"
    )
