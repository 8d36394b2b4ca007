"""The pages of docs: blocks run, links lead somewhere, numbers are those measured."""

import re
from pathlib import Path

import pytest

from experiments.examples.deploy import findings
from experiments.harness.runs import read_measurements
from experiments.report.reading import read_published
from jaxnorm.diagnostics import FAULTS, NOTES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    name: (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "from-flax",
        "from-torch",
        "statistics",
        "conditional",
        "deploy",
        "diagnose",
        "your-own-norm",
    )
}
each_page = pytest.mark.parametrize("page", PAGES)


def named_blocks():
    """Every block of Python, by the page and the heading that it is under."""
    for name, page in PAGES.items():
        for section in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
            heading = section.splitlines()[0]
            for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
                yield pytest.param(block, id=f"{name}: {heading}")


@pytest.mark.slow
@pytest.mark.parametrize("block", list(named_blocks()))
@pytest.mark.usefixtures("lenient", "unchecked")
def test_blocks_run(block):
    exec(compile(block, "page.md", "exec"), {})


@each_page
def test_links_lead_somewhere(page):
    headings = re.findall(r"^##+ (.*)$", PAGES[page], re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (DOCS / target).exists(), target


def test_every_difference_with_a_heading_is_in_the_table():
    differences = PAGES["from-flax"].split("## What differs")[1].split("\n## ")[0]
    headings = re.findall(r"^### (.*)$", differences, re.MULTILINE)
    linked = re.findall(r"^\| \[.*?\]\(#(.*?)\)", differences, re.MULTILINE)
    assert len(set(linked)) == len(headings)


@pytest.fixture
def population():
    return read_published()["population"]


def test_the_table_of_estimators_is_that_of_the_published_result(population):
    for row in population.result["table"]["rows"]:
        assert f"| {' | '.join(row)} |" in PAGES["statistics"]


def test_the_verdicts_on_estimators_are_those_of_the_published_result(population):
    said = re.findall(r"^- (PASS|FAIL|OPEN): (.*)\.$", PAGES["statistics"], re.MULTILINE)
    assert said == [(each.word, each.claim) for each in population.verdicts]


@pytest.fixture
def deployed():
    return read_measurements(DOCS / "deploy" / "result.json")


def test_the_table_of_folding_is_that_of_the_committed_result(deployed):
    for name, cells in findings.rows(deployed).items():
        assert f"| {name} | {' | '.join(cells)} |" in PAGES["deploy"]


def test_the_readme_says_what_folding_gives(deployed):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (before, after, *_), changed = (
        findings.rows(deployed)[name]
        for name in ("operations of the program", "predictions that differ")
    )
    said = f"turns {before} compiled operations into {after} and changes no prediction"
    assert said in readme
    assert changed[1] == "0"


def test_the_verdicts_on_folding_are_those_of_the_committed_result(deployed):
    said = re.findall(r"^- (PASS|FAIL|OPEN): (.*)\.$", PAGES["deploy"], re.MULTILINE)
    assert said == [(each.word, each.claim) for each in findings.verdicts(deployed)]


def test_the_figure_of_folding_is_small():
    assert (DOCS / "deploy" / "figure.png").stat().st_size < 150_000


def test_the_diagnoses_on_the_page_are_those_that_were_printed():
    text = (DOCS / "diagnose" / "diagnoses.txt").read_text(encoding="utf-8")
    shown = re.findall(r"```text\n(.*?)```", PAGES["diagnose"], re.DOTALL)
    assert len(shown) == 4
    assert all(each in text for each in shown)


@pytest.mark.parametrize(
    ("heading", "names"), [("## The diagnoses", FAULTS), ("## The notes", NOTES)]
)
def test_every_diagnosis_and_note_is_in_its_table(heading, names):
    section = PAGES["diagnose"].split(heading)[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    assert tuple(rows[1:]) == names


def test_the_figure_of_diagnoses_is_small():
    assert (DOCS / "diagnose" / "figure.png").stat().st_size < 150_000
