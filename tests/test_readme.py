"""The README: its blocks run, its numbers are measured, its commands are one line each."""

import re
from pathlib import Path

import pytest

from experiments import seed_network
from experiments.results import mean_sd
from experiments.runs import read_measurements

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
@pytest.mark.usefixtures("lenient")
def test_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {})


def test_there_are_two_commands_of_one_line_that_set_themselves_up():
    commands = [block.strip() for block in blocks("sh")]
    assert len(commands) == 2
    for command in commands:
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert commands[0].endswith("-m experiments.seed_network")
    assert commands[1].endswith("-m pytest")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.fixture
def history():
    return read_measurements(ROOT / "docs" / "seed_network" / "result.json")


def test_the_table_is_that_of_the_committed_result(history):
    for name, values in seed_network.accuracies(history).items():
        cells = " | ".join(mean_sd(values[:, epoch - 1]) for epoch in (1, 2, 5, 20))
        assert f"| {name} | {cells} |" in README


def test_the_verdicts_are_those_of_the_committed_result(history):
    said = re.findall(r"^- (PASS|FAIL|OPEN): (.*)\.$", README, re.MULTILINE)
    assert said == [(each.word, each.claim) for each in seed_network.verdicts(history)]


def test_the_figure_is_small():
    assert (ROOT / "docs" / "seed_network" / "figure.png").stat().st_size < 150_000
