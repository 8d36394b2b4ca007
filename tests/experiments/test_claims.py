"""The table of claims is complete, and each claim has evidence."""

import ast
import re
from pathlib import Path

import pytest

from experiments.claims import ARTICLES, CLAIMS
from experiments.report.reading import read_published

ROOT = Path(__file__).parents[2]
ROWS = range(1, 69)


def names_in(path):
    """Returns the names of a file's test functions without importing it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (each for each in tree.body if isinstance(each, ast.FunctionDef))
    return {each.name for each in functions if each.name.startswith("test_")}


def rows_of(test):
    """Returns the rows in the name of a test, such as `test_rows_2_35_and_56_…`."""
    found = re.match(r"test_rows?((?:_and|_\d+)+)_", test)
    return {int(each) for each in re.findall(r"\d+", found[1])} if found else set()


def test_each_row_is_there_once_in_order():
    assert [each.row for each in CLAIMS] == list(ROWS)
    assert {source for each in CLAIMS for source in each.sources} == set(ARTICLES)


def test_what_a_claim_says_is_said_in_sentences():
    for each in CLAIMS:
        said = [each.text, each.number, each.correction or ""]
        assert all(text == "" or text.endswith(".") for text in said), each.row
        assert bool(each.tests) == bool(each.number), each.row


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda each: str(each.row))
def test_the_tests_that_show_a_claim_exist(claim):
    for each in claim.tests:
        path, _, name = each.partition("::")
        assert name in names_in(path), each


def test_tests_that_name_a_row_are_among_those_that_show_it():
    shown = {each.row: each.tests for each in CLAIMS}
    for path in sorted((ROOT / "tests/sources").glob("test_*.py")):
        for name in names_in(path):
            assert rows_of(name), name
            for row in rows_of(name) & set(ROWS):
                assert f"tests/sources/{path.name}::{name}" in shown[row]


def test_each_claim_has_a_test_or_a_published_verdict():
    judged = {row for of in read_published().values() for row in of.rows}
    assert judged <= set(ROWS)
    assert [each.row for each in CLAIMS if not each.tests and each.row not in judged] == []
