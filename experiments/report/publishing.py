"""Publishes results in the repository, and their table in experiments/README.md."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from experiments.claims import CLAIMS
from experiments.harness import options
from experiments.harness.console import Refused
from experiments.harness.listing import STUDIES
from experiments.harness.runs import write_json
from experiments.report import reading
from experiments.report.judging import count, said
from experiments.report.reading import Finished

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
LARGEST = 150_000  # size of a figure in bytes


def publish(
    results: Path, published: Path = reading.PUBLISHED, readme: Path = README
) -> None:
    """Replaces the published results of the same studies by the runs."""
    here = reading.read_runs(results)
    if any(each.quick for each in here.values()):
        raise Refused(f"{results}: holds --quick runs, which are not to be published.")
    for each in here.values():
        settings = each.result["settings"]
        ran = {"seeds": settings["seeds"], "data": settings["data"]["name"]}
        if ran != options.FULL:
            raise Refused(
                f"{results}: {each.name} was run with {ran}, but published results need "
                f"{options.FULL}."
            )
    for each in here.values():
        if each.figure.stat().st_size >= LARGEST:
            raise Refused(f"{each.figure}: is not smaller than {LARGEST:,} bytes.")
    together = reading.read_published(published) | here
    kept = {name: together[name] for name in STUDIES if name in together}
    reading.refuse_what_differs(kept)
    table = with_block(readme.read_text(encoding="utf-8"), block(kept.values()))
    published.mkdir(exist_ok=True)
    for each in here.values():
        shutil.copyfile(each.figure, published / f"{each.name}.png")
    for name in together.keys() - kept.keys():
        (published / f"{name}.png").unlink(missing_ok=True)
    summary = {name: each.result for name, each in kept.items()}
    write_json(published / reading.SUMMARY, summary)
    reading.write(readme, table)


def block(studies: Iterable[Finished]) -> str:
    """Returns the table of verdicts, after the counts of the articles' claims."""
    known = list(studies)
    rows = [
        "| experiment | claim | verdict | evidence | minutes |",
        "|-|-|-|-|-|",
    ]
    for study in known:
        name, minutes = f"`{study.name}`", f"{study.minutes:.1f}"
        for each in study.verdicts:
            cells = [name, each.claim, each.word, each.evidence, minutes]
            escaped = [cell.replace("|", "\\|") for cell in cells]
            rows.append(f"| {' | '.join(escaped)} |")
            name = minutes = ""  # shown once per study
    return "\n".join([f"{said(count(CLAIMS, known))}", "", *rows])


def with_block(text: str, table: str) -> str:
    """Replaces the text between the two markers by the table."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Refused(f"{README}: has no {BEGIN} … {END} to write the results between.")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
