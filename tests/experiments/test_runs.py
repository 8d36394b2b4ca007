import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.harness.console import Interrupted, Refused
from experiments.harness.runs import Run, digest_of, digest_of_code
from tests.experiments.reports import alter

pytestmark = pytest.mark.usefixtures("lenient")
SETTINGS = {"seeds": 2}


def advance(state, step):
    return {"value": jnp.sin(state["value"] * 1.7 + step)}


def fold(run, advance=advance):
    start = {"value": jnp.linspace(0, 1, 5)}
    return run.fold(advance, start, 6, "heading", lambda state, step: f"step {step}")


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_fold_goes_on_bit_for_bit(tmp_path, stop):
    whole = fold(Run(tmp_path / "whole", SETTINGS, restart=False))
    steps = []

    def interrupted(state, step):
        steps.append(step)
        if len(steps) == stop + 1:
            raise KeyboardInterrupt
        return advance(state, step)

    with pytest.raises(Interrupted, match=f"interrupted after {stop} of 6 steps"):
        fold(Run(tmp_path / "parts", SETTINGS, restart=False), interrupted)
    resumed = fold(Run(tmp_path / "parts", SETTINGS, restart=False), interrupted)
    np.testing.assert_array_equal(resumed["value"], whole["value"])
    assert steps == [*range(stop + 1), *range(stop, 6)]


def test_restart_throws_away_what_was_done(tmp_path):
    fold(Run(tmp_path, SETTINGS, restart=False))
    steps = []

    def counted(state, step):
        steps.append(step)
        return advance(state, step)

    fold(Run(tmp_path, {"seeds": 3}, restart=True), counted)
    assert steps == list(range(6))


def test_a_result_is_kept_exactly_and_the_checkpoint_dropped(tmp_path):
    run = Run(tmp_path, SETTINGS, restart=False)
    fold(run)
    assert run.measurements is None
    measured = {"arm": {"loss": np.array([[0.1, np.nan]], np.float32)}}
    run.finish(measured, [{"claim": "c", "passed": True}])
    again = Run(tmp_path, SETTINGS, restart=False)
    np.testing.assert_array_equal(
        again.measurements["arm"]["loss"], measured["arm"]["loss"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]
    result = json.loads((tmp_path / "result.json").read_text())
    identity = {"settings", "versions", "code", "device", "sha256"}
    found = {"notes", "seconds", "measurements", "table", "verdicts"}
    assert set(result) == identity | found
    assert result["device"] == jax.devices()[0].device_kind


def collect(run, computed, stop=None):
    def part(name):
        if name == stop:
            raise KeyboardInterrupt
        computed.append(name)
        return {"value": np.array([0.1, np.nan, np.inf]), "one": np.float32(0.3)}

    parts = {name: functools.partial(part, name) for name in "abc"}
    return run.collect(parts, "heading", lambda name, part: f"{name}: {part['one']:.1f}")


def test_interrupted_parts_are_not_computed_again(tmp_path, capsys):
    computed = []
    with pytest.raises(Interrupted, match="interrupted after 2 of 3 parts"):
        collect(Run(tmp_path, SETTINGS, restart=False), computed, stop="c")
    run = Run(tmp_path, SETTINGS, restart=False)
    found = collect(run, computed)
    assert computed == ["a", "b", "c"]
    assert list(found) == computed
    for part in found.values():
        np.testing.assert_array_equal(part["value"], [0.1, np.nan, np.nan])
        assert part["one"] == np.float32(0.3)
    assert capsys.readouterr().out.count("b: 0.3") == 2
    run.finish(found, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]


def test_a_result_without_measurements_is_refused(tmp_path):
    run = Run(tmp_path, SETTINGS, restart=False)
    run.finish({}, [])
    alter(run.result, lambda result: result.pop("measurements"))
    with pytest.raises(Refused, match="has no measurements"):
        _ = Run(tmp_path, SETTINGS, restart=False).measurements


def test_finishing_again_keeps_notes_and_seconds_and_leaves_an_equal_file_alone(tmp_path):
    run = Run(tmp_path, SETTINGS, restart=False)
    run.note("n")
    measured = {"arm": {"loss": np.float32([0.1, np.nan])}}
    run.finish(measured, [{"claim": "c"}])
    before = run.result.stat().st_mtime_ns
    again = Run(tmp_path, SETTINGS, restart=False)
    again.finish(again.measurements, [{"claim": "c"}])
    assert run.result.stat().st_mtime_ns == before
    again.finish(again.measurements, [{"claim": "d"}])
    assert json.loads(run.result.read_text())["verdicts"] == [{"claim": "d"}]
    assert again.notes == ["n"]


def test_seconds_add_up_over_interrupts(tmp_path):
    with pytest.raises(Interrupted):
        collect(Run(tmp_path, SETTINGS, restart=False), [], stop="c")
    alter(
        tmp_path / ".run" / "notes.json",
        lambda noted: noted.update(notes=["n"], seconds=100),
    )
    run = Run(tmp_path, SETTINGS, restart=False)
    run.finish(collect(run, []), [])
    again = Run(tmp_path, SETTINGS, restart=False)
    assert 100 <= again.seconds < 110
    assert again.notes == ["n"]


def test_a_note_is_said_once_and_kept_when_a_run_is_stopped(tmp_path, capsys):
    run = Run(tmp_path, SETTINGS, restart=False)
    assert run.notes == []
    run.note("torch is not installed")
    again = Run(tmp_path, SETTINGS, restart=False)
    again.note("torch is not installed")
    again.note("haiku fails")
    said = ["torch is not installed", "haiku fails"]
    assert capsys.readouterr().out.splitlines() == said
    again.finish({}, [])
    assert Run(tmp_path, SETTINGS, restart=False).notes == said
    assert Run(tmp_path, SETTINGS, restart=True).notes == []


def test_the_progress_bar_says_what_is_being_done(tmp_path, capsys):
    start = {"value": jnp.zeros(1)}
    for word in ("training", "measuring"):
        run = Run(tmp_path / word, SETTINGS, restart=False)
        others = {} if word == "training" else {"word": word}
        run.fold(advance, start, 1, "heading", lambda state, step: "", **others)
        assert f"{word} ━" in capsys.readouterr().out


def test_a_folder_with_another_run_is_refused(tmp_path):
    Run(tmp_path, SETTINGS, restart=False)
    with pytest.raises(Refused, match=r"settings seeds: 2 there, 3 now.*--restart"):
        Run(tmp_path, {"seeds": 3}, restart=False)


def test_a_folder_with_another_result_is_refused(tmp_path):
    run = Run(tmp_path, SETTINGS, restart=False)
    run.finish({}, [])
    with pytest.raises(Refused, match="settings seeds: 2 there, 3 now"):
        Run(tmp_path, {"seeds": 3}, restart=False)


def test_a_folder_with_another_version_is_refused(tmp_path):
    Run(tmp_path, SETTINGS, restart=False)
    record = tmp_path / ".run" / "record.json"
    alter(record, lambda recorded: recorded["versions"].update(jax="0.0.1"))
    with pytest.raises(Refused, match=r"versions jax: 0\.0\.1 there"):
        Run(tmp_path, SETTINGS, restart=False)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be written to"):
        Run(tmp_path / "file" / "below", SETTINGS, restart=False)


def test_another_code_is_another_run(tmp_path, monkeypatch):
    """An edited study neither goes on from the old one's state nor shows its result."""
    settings = SETTINGS | {"experiment": "ghost"}
    package = tmp_path / "jaxnorm"
    package.mkdir()
    source = package / "norm.py"
    source.write_text("epsilon = 1e-5")
    monkeypatch.setattr("jaxnorm.__file__", str(package / "__init__.py"))
    run = Run(tmp_path / "run", settings, restart=False)
    Run(tmp_path / "run", settings, restart=False)
    source.write_text("epsilon = 1e-3")
    with pytest.raises(Refused, match=r"differs \(code: .* there, .* now\); .*--restart"):
        Run(tmp_path / "run", settings, restart=False)
    run.finish({}, [])
    with pytest.raises(Refused, match="code: "):
        Run(tmp_path / "run", settings, restart=False)
    source.write_text("epsilon = 1e-5")
    assert Run(tmp_path / "run", settings, restart=False).measurements == {}
    assert digest_of_code("ghost") != digest_of_code("contours")


@pytest.mark.parametrize("stop", [None, "c"])
def test_a_change_of_any_stored_number_is_noticed(tmp_path, stop):
    """A result, or the parts of an interrupted run."""
    run = Run(tmp_path, SETTINGS, restart=False)
    if stop is None:
        run.finish({"arm": {"loss": np.float32([0.25])}}, [])
        path, number = run.result, b"0.25"
    else:
        with pytest.raises(Interrupted):
            collect(run, [], stop)
        path, number = tmp_path / ".run/parts/b.json", b"0.1"
    content = path.read_bytes()
    assert number in content
    path.write_bytes(content.replace(number, b"0.5", 1))
    with pytest.raises(Refused, match=rf"{path.name}: was changed.*checksum differs"):
        collect(Run(tmp_path, SETTINGS, restart=False), [])
    run = Run(tmp_path, SETTINGS, restart=True)
    run.finish(collect(run, []), [])


@pytest.mark.parametrize("content", ["{", "[]", "3", "null", "{}", '{"settings": 1}'])
@pytest.mark.parametrize("restart", [False, True])
def test_a_result_that_is_of_no_run_is_refused_and_kept(tmp_path, content, restart):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(Refused, match="move it away"):
        Run(tmp_path, SETTINGS, restart=restart)
    assert (tmp_path / "result.json").read_text() == content


@pytest.mark.parametrize("name", ["figure.png", ".run/thesis.txt"])
@pytest.mark.parametrize("restart", [False, True])
def test_files_that_are_of_no_run_are_refused_and_kept(tmp_path, name, restart):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(Refused, match="belongs to no run"):
        Run(tmp_path, SETTINGS, restart=restart)
    assert path.read_text() == "precious"


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "thesis.txt").write_text("precious")
    for restart in (False, True):
        run = Run(tmp_path, SETTINGS, restart=restart)
        fold(run)
        run.finish({}, [])
    assert (tmp_path / "checkpoint" / "thesis.txt").read_text() == "precious"


def stop_at_2(state, step):
    if step == 2:
        raise KeyboardInterrupt
    return advance(state, step)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's
def test_a_spoiled_checkpoint_is_refused_if_it_cannot_be_read(tmp_path):
    """Empties each of its files in turn: reading still works, or refuses in one line."""
    with pytest.raises(Interrupted):
        fold(Run(tmp_path / "good", SETTINGS, restart=False), stop_at_2)
    whole = fold(Run(tmp_path / "whole", SETTINGS, restart=False))
    checkpoint = tmp_path / "good" / ".run" / "checkpoint"
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    refusals = []
    for number, path in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", copy)
        (copy / path.relative_to(tmp_path / "good")).write_bytes(b"")
        try:
            resumed = fold(Run(copy, SETTINGS, restart=False))
        except Refused as error:
            refusals.append(str(error))
        else:
            np.testing.assert_array_equal(resumed["value"], whole["value"])
    assert len(refusals) >= 3
    for message in refusals:
        assert "start over with --restart" in message
        assert "\n" not in message


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's
def test_flipped_bytes_of_a_checkpoint_never_change_a_result(tmp_path):
    with pytest.raises(Interrupted):
        fold(Run(tmp_path / "good", SETTINGS, restart=False), stop_at_2)
    whole = fold(Run(tmp_path / "whole", SETTINGS, restart=False))
    checkpoint = tmp_path / "good" / ".run" / "checkpoint"
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    refusals, rng = [], np.random.default_rng(0)
    for number, path in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", copy)
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 3):
            content[place] ^= 0xFF
        (copy / path.relative_to(tmp_path / "good")).write_bytes(content)
        try:
            resumed = fold(Run(copy, SETTINGS, restart=False))
        except Refused as error:
            refusals.append(str(error))
        else:
            np.testing.assert_array_equal(resumed["value"], whole["value"])
    assert len(refusals) >= 3
    assert all("start over with --restart" in each for each in refusals)


def test_another_value_in_a_checkpoint_is_told_by_its_checksum(tmp_path, monkeypatch):
    """As from a file that is damaged, and still can be read."""
    with pytest.raises(Interrupted):
        fold(Run(tmp_path, SETTINGS, restart=False), stop_at_2)
    restore = ocp.CheckpointManager.restore

    def damaged(*arguments, **options):
        found = restore(*arguments, **options)
        found["state"]["value"] = found["state"]["value"].at[3].add(1e-7)
        return found

    monkeypatch.setattr(ocp.CheckpointManager, "restore", damaged)
    with pytest.raises(Refused, match="is damaged, as its checksum differs; start over"):
        fold(Run(tmp_path, SETTINGS, restart=False))


def test_a_checksum_tells_values_dtypes_shapes_and_keys_apart():
    states = (
        {"a": jnp.arange(3)},
        {"a": jnp.arange(3.0)},
        {"a": jnp.arange(3)[None]},
        {"a": jnp.array([0, 1, 3])},
        {"a": jax.random.key(0)},
        {"a": jax.random.key(1)},
    )
    assert len({digest_of(each) for each in states}) == len(states)
    assert digest_of(states[0]) == digest_of({"a": np.arange(3, dtype=np.int32)})


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
    with pytest.raises(Refused, match="No space left on device"):
        fold(Run(tmp_path, SETTINGS, restart=False))
