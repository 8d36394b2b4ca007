"""The diagnosis experiment reports three faulty networks, and not a healthy one."""

import json
from pathlib import Path

import pytest

from experiments.examples import diagnose

RESULT = Path(__file__).parents[2] / "docs" / "diagnose" / "result.json"


def test_in_the_committed_result_all_are_told_what_they_have():
    verdicts = json.loads(RESULT.read_text(encoding="utf-8"))["verdicts"]
    assert len(verdicts) == len(diagnose.cases())
    assert all(each["passed"] for each in verdicts)


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("seed", ["0", "7"])
def test_each_network_is_told_what_it_has(seed, tmp_path, capsys):
    assert diagnose.main(["--seed", seed, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("PASS") == len(diagnose.cases())
    assert "FAIL" not in shown
    assert (tmp_path / "run" / "diagnoses.txt").read_text(encoding="utf-8")[:500] in shown
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
