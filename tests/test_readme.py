"""The README: its blocks run, its numbers are measured, its commands are one line each."""

import re
from pathlib import Path

import pytest

from experiments.claims import CLAIMS
from experiments.report.judging import count
from experiments.report.reading import read_published

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
    assert commands[0].endswith("-m experiments seed_network")
    assert commands[1].endswith("-m pytest")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.fixture
def main_job():
    return read_published()["seed_network"]


def test_the_table_is_that_of_the_published_result(main_job):
    for row in main_job.result["table"]["rows"]:
        assert f"| {' | '.join(row)} |" in README


def test_the_readme_says_how_many_claims_hold():
    counts = count(CLAIMS, read_published().values())
    assert counts.total() == 68
    assert counts["open"] == 0
    said = (
        f"Of these claims, {counts['holds']} hold, {counts['holds in part']} hold in part, "
        f"{counts['fails']} fail and {counts['corrected']} are corrected."
    )
    assert said in README.replace("\n", " ")


def test_the_verdicts_are_those_of_the_published_result(main_job):
    said = re.findall(r"^- (PASS|FAIL|OPEN): (.*)\.$", README, re.MULTILINE)
    assert said == [(each.word, each.claim) for each in main_job.verdicts]
