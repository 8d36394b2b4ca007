"""The page: one HTML file that loads nothing else."""

from pathlib import Path

from experiments.claims import ARTICLES, CLAIMS
from experiments.report.claims_table import claims_table
from experiments.report.judging import RULE, WORDS, count, said
from experiments.report.reading import Studies
from experiments.report.sections import missing, section
from experiments.report.text import escape, slug

STYLE = Path(__file__).with_name("style.css")

WHAT = (
    "Five articles on batch normalisation make 68 claims. Each is tested here, either by "
    "computing what it states or by experiments with five paired seeds. Thresholds were "
    "fixed before the run that is shown; settings were chosen in trials with one seed."
)
QUICK = "These are quick runs: few seeds on small data, too little to decide most claims."


def page(studies: Studies) -> str:
    """Returns all claims with their verdicts, then a section for each study."""
    known = list(studies.values())
    counts = count(CLAIMS, known)
    quick = f'<p class="note">{QUICK}</p>' if any(each.quick for each in known) else ""
    articles = "".join(
        f"<dt>{name}</dt><dd>{escape(each)}</dd>" for name, each in ARTICLES.items()
    )
    links = " ".join(f'<a href="#{each}">{each}</a>' for each in studies)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>jaxnorm: what normalisation does, claim by claim</title>
<style>
{STYLE.read_text(encoding="utf-8")}{_filters()}</style>
</head>
<body>
<header>
<p class="over">jaxnorm</p>
<h1>What normalisation does, claim by claim</h1>
<p class="lede">{WHAT}</p>
{quick}
{_overview(counts)}
</header>
<main>
<section aria-labelledby="claims">
<h2 id="claims">The claims</h2>
<p>{escape(said(counts))} {escape(RULE)}</p>
{_choice(counts)}
{claims_table(CLAIMS, known)}
<dl class="articles">{articles}</dl>
</section>
<section aria-labelledby="experiments">
<h2 id="experiments">The experiments</h2>
<nav aria-label="experiments">{links}</nav>
{"".join(map(section, known))}
{missing(studies)}
</section>
</main>
<footer>
<h2>Made with</h2>
{_environments(studies)}
</footer>
</body>
</html>
"""


def _overview(counts: dict[str, int]) -> str:
    """Returns the counts in large type, above a bar of their proportions."""
    shown = [word for word in WORDS if counts[word]]
    figures = "".join(
        f'<div class="{slug(word)}"><dd>{counts[word]}</dd><dt>{word}</dt></div>'
        for word in shown
    )
    bar = "".join(
        f'<span class="{slug(word)}" style="flex:{counts[word]}"></span>' for word in shown
    )
    return (
        f'<dl class="counts">{figures}</dl>\n'
        f'<div class="bar" aria-hidden="true">{bar}</div>'
    )


def _choice(counts: dict[str, int]) -> str:
    """Returns the choice of rows to show; the style sheet hides the others."""
    choices = {"all": len(CLAIMS)} | {word: counts[word] for word in WORDS if counts[word]}
    inputs = "".join(
        f'<label><input type="radio" name="show" id="show-{slug(word)}"'
        f"{' checked' * (word == 'all')}> {word} <b>{number}</b></label>"
        for word, number in choices.items()
    )
    return f'<fieldset class="choice"><legend>Show</legend>{inputs}</fieldset>'


def _filters() -> str:
    rules = (
        f"body:has(#show-{name}:checked) tr.claim:not(.{name}) {{display: none}}"
        for name in map(slug, WORDS)
    )
    return "\n".join(rules) + "\n"


def _environments(studies: Studies) -> str:
    """Returns the devices and versions with which the studies ran."""
    ran: dict[str, list[str]] = {}
    for name, each in studies.items():
        versions = " · ".join(" ".join(pair) for pair in each.result["versions"].items())
        ran.setdefault(f"{each.result['device']} · {versions}", []).append(name)
    if len(ran) == 1:
        return f"<p>{escape(*ran)}</p>"
    return "".join(
        f"<p>{escape(each)}: {escape(', '.join(names))}</p>" for each, names in ran.items()
    )
