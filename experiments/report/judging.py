"""Judges claims from tests and experiments together."""

from collections import Counter
from collections.abc import Iterable

from experiments.claims import Claim
from experiments.harness.results import Verdict
from experiments.report.reading import Finished

WORDS = ("holds", "holds in part", "fails", "corrected", "open")
RULE = (
    "A claim holds if everything that decides it supports it, fails if nothing does, and "
    "holds in part otherwise. It is decided by the verdicts of experiments that name its "
    "row, and by tests, which must pass for any change of this repository, except tests "
    "that show only how it would come about. It is corrected "
    "where the sources are wrong or contradict each other, and open while nothing has "
    "decided it."
)


def concerning(claim: Claim, studies: Iterable[Finished]) -> list[tuple[Finished, Verdict]]:
    """Returns the verdicts that name the claim's row."""
    return [
        (study, each)
        for study in studies
        for each in study.verdicts
        if claim.row in each.rows
    ]


def judge(claim: Claim, verdicts: Iterable[Verdict]) -> str:
    """Returns one of `WORDS`."""
    if claim.correction is not None:
        return "corrected"
    decided = [each.passed for each in verdicts if each.passed is not None]
    if claim.tests and not claim.mechanism:
        decided.append(True)
    if not decided:
        return "open"
    if all(decided):
        return "holds"
    return "holds in part" if any(decided) else "fails"


def count(claims: Iterable[Claim], studies: Iterable[Finished]) -> Counter[str]:
    """Counts the claims judged with each word."""
    known = list(studies)
    return Counter(
        judge(each, (verdict for _, verdict in concerning(each, known))) for each in claims
    )


def said(counts: Counter[str]) -> str:
    """Returns the counts in a sentence."""
    each = ", ".join(f"{word} {counts[word]}" for word in WORDS if counts[word])
    return f"The verdicts on the {counts.total()} claims of the articles: {each}."
