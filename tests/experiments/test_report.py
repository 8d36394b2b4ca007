"""The report judges by its rule, mixes nothing, and publishes what it shows."""

import json

import pytest

from experiments import report
from experiments.claims import CLAIMS, Claim
from experiments.harness.console import Refused
from experiments.harness.listing import STUDIES
from experiments.harness.results import Verdict
from experiments.report import publishing, reading
from experiments.report.judging import WORDS, count, judge
from tests.experiments.reports import PIXEL, alter, put, verdict

TESTED = ("tests/test_it.py::test_it",)


@pytest.mark.parametrize(
    ("tests", "passed", "correction", "word"),
    [
        (TESTED, [], None, "holds"),
        ((), [True, None], None, "holds"),
        (TESTED, [True, True], None, "holds"),
        (TESTED, [False], None, "holds in part"),
        ((), [True, False, None], None, "holds in part"),
        ((), [False, None], None, "fails"),
        ((), [], None, "open"),
        ((), [None], None, "open"),
        (TESTED, [True], "No.", "corrected"),
        ((), [], "No.", "corrected"),
    ],
)
def test_what_is_said_of_a_claim(tests, passed, correction, word):
    claim = Claim(1, ("S0",), "So it is.", tests, "1.", correction)
    assert judge(claim, [Verdict("c", (1,), each, "e") for each in passed]) == word


def test_tests_of_a_mechanism_decide_nothing():
    claim = Claim(1, ("S0",), "So it is.", TESTED, "1.", mechanism=True)
    assert judge(claim, []) == "open"
    assert judge(claim, [Verdict("c", (1,), False, "e")]) == "fails"


def test_what_was_run_here_stands_before_what_is_published(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publishing.BEGIN}\noutdated\n{publishing.END}\nafter\n")
    runs, published = tmp_path / "runs", tmp_path / "published"
    put(runs, "seed_network", verdict([12], True))
    put(runs, "learning_rate", verdict([51], False))
    publishing.publish(runs, published, readme)
    assert (published / "learning_rate.png").read_bytes() == PIXEL
    summary = json.loads((published / reading.SUMMARY).read_text())
    assert list(summary) == ["seed_network", "learning_rate"]
    assert "measurements" not in summary["learning_rate"]

    here = tmp_path / "here"
    put(here, "learning_rate", verdict([51], True))
    found = reading.read(here, published)
    assert {name: each.origin for name, each in found.items()} == {
        "seed_network": "published",
        "learning_rate": "run here",
    }
    assert [each.passed for each in found["learning_rate"].verdicts] == [True]
    assert count(CLAIMS, found.values()).total() == len(CLAIMS)

    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "outdated" not in text
    row = "| `learning_rate` | it is <so> \\| not so | FAIL | 5/5 seeds & more | 1.5 |"
    assert row in text


def test_quick_runs_stand_alone_and_are_not_published(tmp_path):
    runs, published = tmp_path / "runs", tmp_path / "published"
    readme = tmp_path / "README.md"
    readme.write_text(publishing.BEGIN + publishing.END)
    put(runs, "seed_network")
    publishing.publish(runs, published, readme)
    quick = tmp_path / "quick"
    put(quick, "learning_rate", quick=True)
    assert list(reading.read(quick, published)) == ["learning_rate"]
    with pytest.raises(Refused, match="not to be published"):
        publishing.publish(quick, published, readme)


def test_what_does_not_belong_together_is_refused(tmp_path, capsys):
    put(tmp_path / "a", "seed_network")
    put(tmp_path / "a", "learning_rate", quick=True)
    assert report.main(["--results", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "learning_rate is of a --quick run and seed_network of a full one" in error
    put(tmp_path / "b", "seed_network")
    put(tmp_path / "b", "learning_rate", jax="0.11")
    assert report.main(["--results", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert "are from different versions (jax 0.10.2 and 0.11); run one again" in error
    assert error.count("\n") == 1


def test_what_is_no_result_is_refused(tmp_path):
    put(tmp_path, "seed_network")
    (tmp_path / "seed_network/result.json").write_text("{}")
    with pytest.raises(Refused, match="its checksum differs; move it away"):
        reading.read_runs(tmp_path)
    (tmp_path / "seed_network/figure.png").unlink()
    with pytest.raises(Refused, match=r"figure\.png: is missing"):
        reading.read_runs(tmp_path)
    with pytest.raises(Refused, match="to write the results between"):
        publishing.with_block("nothing", "")


@pytest.mark.parametrize(
    "damage", [{"seconds": None}, {"table": None}, {"verdicts": [{"claim": "c"}]}]
)
def test_a_result_in_which_something_is_missing_is_refused(tmp_path, damage):
    put(tmp_path, "seed_network", verdict([12], True))
    path = tmp_path / "seed_network/result.json"
    alter(path, lambda result: result.update(damage))
    with pytest.raises(Refused, match="is not the result of a run"):
        reading.read_runs(tmp_path)


def test_what_was_run_with_other_settings_is_not_published(tmp_path):
    put(tmp_path, "seed_network")
    path = tmp_path / "seed_network/result.json"
    alter(path, lambda result: result["settings"].update(seeds=1))
    with pytest.raises(Refused, match=r"was run with .*'seeds': 1"):
        publishing.publish(tmp_path, tmp_path / "published")


def test_a_figure_that_is_too_large_is_not_published(tmp_path):
    put(tmp_path, "seed_network")
    (tmp_path / "seed_network/figure.png").write_bytes(bytes(publishing.LARGEST))
    with pytest.raises(Refused, match="not smaller than 150,000 bytes"):
        publishing.publish(tmp_path, tmp_path / "published")


@pytest.fixture(scope="module")
def published():
    return reading.read_published()


def test_what_is_published_belongs_together_and_is_small(published):
    reading.refuse_what_differs(published)
    assert list(published) == list(STUDIES)
    for each in published.values():
        assert each.figure.stat().st_size < publishing.LARGEST
        assert not each.quick


def test_the_table_of_the_readme_is_that_of_what_is_published(published):
    text = publishing.README.read_text(encoding="utf-8")
    assert publishing.with_block(text, publishing.block(published.values())) == text


def test_words_are_those_of_the_rule():
    assert {"holds", "holds in part", "fails", "corrected", "open"} == set(WORDS)
