"""One claim of the sources."""

from typing import NamedTuple


class Claim(NamedTuple):
    """A claim of one or more of the articles.

    Attributes:
      row: its number, by which verdicts and tests refer to it.
      sources: the articles that make the claim.
      text: the claim, in our words.
      tests: pytest ids.
      number: what the tests show, in a few words.
      correction: what is true, if the source is wrong or contradicts another.
      mechanism: whether the tests show only how it would come about, so that experiments
        must decide whether it does.
    """

    row: int
    sources: tuple[str, ...]
    text: str
    tests: tuple[str, ...] = ()
    number: str = ""
    correction: str | None = None
    mechanism: bool = False


def tests(file: str, *names: str) -> tuple[str, ...]:
    """Returns the ids of tests in a file, given their names without `test_`."""
    return tuple(f"tests/{file}.py::test_{name}" for name in names)
