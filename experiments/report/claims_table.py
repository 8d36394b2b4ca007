"""The table of claims, as HTML.

The roles are explicit because the style sheet lays out rows as blocks on narrow screens,
which hides the table from screen readers.
"""

from collections.abc import Iterable, Sequence

from experiments.claims import Claim
from experiments.harness.results import Verdict
from experiments.report.judging import concerning, judge
from experiments.report.reading import Finished
from experiments.report.text import escape, pill, prose, slug

HEADINGS = ("row", "source", "claim", "verdict", "evidence")


def claims_table(claims: Iterable[Claim], studies: Sequence[Finished]) -> str:
    """Returns a row for each claim."""
    headings = "".join(
        f'<th scope="col" role="columnheader">{each}</th>' for each in HEADINGS
    )
    rows = "\n".join(_row(each, concerning(each, studies)) for each in claims)
    return (
        f'<table class="claims" role="table">\n<thead role="rowgroup"><tr role="row">'
        f'{headings}</tr></thead>\n<tbody role="rowgroup">\n{rows}\n</tbody>\n</table>'
    )


def _row(claim: Claim, found: list[tuple[Finished, Verdict]]) -> str:
    word = judge(claim, (verdict for _, verdict in found))
    correction = (
        f'<p class="correction"><b>In truth</b> {prose(claim.correction)}</p>'
        if claim.correction
        else ""
    )
    cells = (
        ("source", escape(" ".join(claim.sources))),
        ("says", f"<p>{prose(claim.text)}</p>{correction}"),
        ("verdict", pill(word)),
        ("evidence", _evidence(claim, found)),
    )
    return (
        f'<tr class="claim {slug(word)}" id="row-{claim.row}" role="row">'
        f'<th scope="row" role="rowheader">{claim.row}</th>'
        + "".join(f'<td class="{name}" role="cell">{each}</td>' for name, each in cells)
        + "</tr>"
    )


def _evidence(claim: Claim, found: list[tuple[Finished, Verdict]]) -> str:
    parts = [f"<p>{prose(claim.number)}</p>"] if claim.number else []
    parts += [
        f"<p>{pill(verdict.word)} {escape(verdict.claim)}: {escape(verdict.evidence)} "
        f'<a href="#{study.name}">{study.name}</a></p>'
        for study, verdict in found
    ]
    if claim.tests:
        names = "".join(f"<li><code>{escape(each)}</code></li>" for each in claim.tests)
        said = "1 test" if len(claim.tests) == 1 else f"{len(claim.tests)} tests"
        parts.append(f"<details><summary>{said}</summary><ul>{names}</ul></details>")
    return "".join(parts) or "<p>No experiment that decides this has been run.</p>"
