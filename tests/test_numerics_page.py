"""The page on numerics: every table on it is that of a committed result."""

from pathlib import Path

import pytest

from experiments.benchmarks import page
from experiments.benchmarks.tables import markdown

DOCS = Path(__file__).parent.parent / "docs"
PAGE, RESULTS = DOCS / "numerics.md", DOCS / "numerics"


def shown() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", page.TABLES)
def test_every_table_is_that_of_the_committed_result(kind):
    result = page.read(kind, RESULTS / f"{kind}.json")
    for table in page.TABLES[kind](result["measurements"]):
        again = f"python -m experiments.benchmarks.page {kind} docs/numerics/{kind}.json"
        assert markdown(table) in shown(), f"{table.title}: paste the output of {again}"


def test_no_other_table_is_on_the_page():
    tables = [
        markdown(table)
        for kind in page.TABLES
        for table in page.TABLES[kind](
            page.read(kind, RESULTS / f"{kind}.json")["measurements"]
        )
    ]
    rows = {row for table in tables for row in table.splitlines()}
    for line in shown().splitlines():
        assert not line.startswith("|") or line in rows, line


@pytest.mark.parametrize("kind", page.TABLES)
def test_who_was_left_out_is_said(kind):
    for note in page.read(kind, RESULTS / f"{kind}.json").get("notes", []):
        assert note in shown()


def test_the_claims_of_the_study_are_as_it_found_them():
    verdicts = page.read("accuracy", RESULTS / "accuracy.json")["verdicts"]
    assert verdicts
    assert all(each["passed"] for each in verdicts)


def test_the_figures_are_small():
    for path in RESULTS.glob("*.png"):
        assert path.stat().st_size < 150_000, path
