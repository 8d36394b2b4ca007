"""A study's section on the page: question, figure and verdicts."""

import base64
import textwrap
from typing import Any

from experiments.harness.listing import STUDIES, docstring, summary
from experiments.harness.results import Verdict
from experiments.report.reading import Finished, Studies
from experiments.report.text import escape, pill, prose


def section(study: Finished) -> str:
    """Returns a section with what the study asks, shows and finds."""
    first, *paragraphs = docstring(study.name).split("\n\n")
    about = "".join(f"<p>{prose(textwrap.fill(each, 10**6))}</p>" for each in paragraphs)
    picture = base64.b64encode(study.figure.read_bytes()).decode("ascii")
    notes = "".join(f"<p>{escape(each)}</p>" for each in study.result["notes"])
    return f"""
<article id="{study.name}" aria-labelledby="{study.name}-heading">
<h3 id="{study.name}-heading"><code>{study.name}</code> {prose(first)}</h3>
{about}
<figure><img alt="Figure: {escape(first)} The verdicts below say what it shows."
 src="data:image/png;base64,{picture}"></figure>
<ul class="verdicts">{"".join(map(_verdict, study.verdicts))}</ul>
{_table(study.result["table"])}
{notes}<p class="meta">{escape(_settings(study))}</p>
</article>
"""


def _verdict(verdict: Verdict) -> str:
    rows = ", ".join(f'<a href="#row-{row}">{row}</a>' for row in verdict.rows)
    named = f" <small>row{'s' * (len(verdict.rows) > 1)} {rows}</small>" if rows else ""
    return (
        f"<li>{pill(verdict.word)} <div><p>{escape(verdict.claim)}{named}</p>"
        f"<p>{escape(verdict.evidence)}</p></div></li>"
    )


def _table(table: dict[str, Any]) -> str:
    """Returns the numbers, folded away."""
    headings = "".join(f'<th scope="col">{escape(each)}</th>' for each in table["headings"])
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in cells)
        + "</tr>"
        for first, *cells in table["rows"]
    )
    return (
        f'<details class="numbers"><summary>{escape(table["title"])}</summary>\n'
        f"<div><table><thead><tr>{headings}</tr></thead>\n<tbody>{rows}</tbody></table>"
        "</div></details>"
    )


def _settings(study: Finished) -> str:
    """Returns how the study was run, and how long it took."""
    settings: dict[str, Any] = study.result["settings"]
    said = [f"{study.minutes:.1f} minutes", study.origin]
    said += ["quick"] * study.quick
    data = settings.get("data", {})
    if "train" in data:
        said.append(
            f"{data['name']}: {data['train'][0]} to train, {data['test'][0]} to test"
        )
    left = {"experiment", "quick", "data"}
    said += [
        f"{name.replace('_', ' ')} {value}"
        for name, value in settings.items()
        if name not in left
    ]
    return " · ".join(said)


def missing(studies: Studies) -> str:
    """Returns the list of studies that have no result yet."""
    names = [name for name in STUDIES if name not in studies]
    if not names:
        return ""
    each = "".join(f"<li><code>{name}</code> {prose(summary(name))}</li>" for name in names)
    return (
        '<article class="missing"><h3>Not run yet</h3>'
        f"<ul>{each}</ul><p><code>python -m experiments NAME</code> runs one.</p></article>"
    )
