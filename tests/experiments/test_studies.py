"""Properties that all studies share."""

import importlib
import json
import re
import subprocess
import sys

import pytest

from experiments import __main__ as listing
from experiments import all as all_studies
from experiments.harness import options
from experiments.harness.listing import NAMES, STUDIES, module, summary
from experiments.harness.study import Study

pytestmark = pytest.mark.usefixtures("lenient")


def study(name) -> Study:
    return importlib.import_module(module(name)).STUDY


def test_the_experiments_are_listed_with_a_line_each(capsys):
    assert listing.main([]) == 0
    listed = capsys.readouterr().out
    assert "with and without batch normalisation" in listed
    for name in NAMES:
        assert re.search(rf"^  {name} .*{re.escape(summary(name)[-20:])}$", listed, re.M)


def test_an_unknown_name_lists_the_known_ones(capsys):
    assert listing.main(["unknown"]) == 2
    error = capsys.readouterr().err
    assert "'unknown'" in error
    assert all(name in error for name in NAMES)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_the_name_and_claim_of_its_module(name):
    each = study(name)
    assert each.name == name
    assert each.parser.prog == f"python -m experiments {name}"
    assert summary(name).endswith(".")
    assert each.parser.description.startswith(summary(name))
    full = options.parse(each.parser, [])
    quick = options.parse(each.parser, ["--quick"])
    assert (full.seeds, full.data, quick.seeds, quick.data) == (5, "mnist5k", 2, "digits")


def test_what_was_chosen_goes_before_what_is_quick():
    chosen = options.parse(study("seed_network").parser, ["--quick", "--seeds", "3"])
    assert (chosen.seeds, chosen.epochs) == (3, 2)


def run_all_quickly(folder) -> str:
    """Returns what the command prints in its own process, with JAX as a user has it."""
    command = [sys.executable, "-m", "experiments", "all", "--quick", "--out", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_all_of_them_run_quickly_and_are_not_run_again(tmp_path):
    assert "finished already" not in run_all_quickly(tmp_path)
    for name in STUDIES:
        result = json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))
        assert result["settings"]["experiment"] == name
        assert result["settings"]["quick"]
        assert result["seconds"] > 0
        assert result["verdicts"]
        assert result["table"]["rows"]
        assert 10_000 < (tmp_path / name / "figure.png").stat().st_size < 150_000
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert run_all_quickly(tmp_path).count("finished already") == len(STUDIES)
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_what_refuses_does_not_keep_the_others_from_being_run(
    tmp_path, monkeypatch, capsys
):
    ran = []

    def refuse(self, arguments, progress):
        ran.append(self.name)
        return 2 if self.name == STUDIES[0] else 0

    monkeypatch.setattr(Study, "__call__", refuse)
    assert all_studies.main(["--out", str(tmp_path)]) == 2
    assert ran == list(STUDIES)


def test_an_interrupt_ends_all(tmp_path, monkeypatch):
    ran = []

    def interrupt(self, arguments, progress):
        ran.append(self.name)
        return 130

    monkeypatch.setattr(Study, "__call__", interrupt)
    assert all_studies.main(["--out", str(tmp_path)]) == 130
    assert ran == [STUDIES[0]]
