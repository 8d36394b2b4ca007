"""The page on moving over from flax: its blocks run, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "from-flax.md").read_text(encoding="utf-8")


def named_blocks():
    """Every block of Python, by the heading that it is under."""
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            yield pytest.param(block, id=heading)


@pytest.mark.parametrize("block", list(named_blocks()))
@pytest.mark.usefixtures("lenient", "unchecked")
def test_blocks_run(block):
    exec(compile(block, "from-flax.md", "exec"), {})


def test_links_lead_somewhere():
    headings = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (DOCS / target).exists(), target


def test_every_difference_with_a_heading_is_in_the_table():
    differences = PAGE.split("## What differs")[1].split("\n## ")[0]
    headings = re.findall(r"^### (.*)$", differences, re.MULTILINE)
    linked = re.findall(r"^\| \[.*?\]\(#(.*?)\)", differences, re.MULTILINE)
    assert len(set(linked)) == len(headings)
