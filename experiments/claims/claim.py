"""One claim of the sources."""

from typing import NamedTuple


class Claim(NamedTuple):
    """What one or more of the articles say.

    Attributes:
      row: its number, by which verdicts and tests name it.
      sources: the articles that say it.
      text: what they say, in our words.
      tests: ids for pytest.
      number: what the tests show, in a few words.
      correction: what is true, where the source is wrong or contradicts another.
      mechanism: whether the tests show how it comes about, and only experiments can tell
        whether it does.
    """

    row: int
    sources: tuple[str, ...]
    text: str
    tests: tuple[str, ...] = ()
    number: str = ""
    correction: str | None = None
    mechanism: bool = False


def tests(file: str, *names: str) -> tuple[str, ...]:
    """The ids of these tests, without the `test_` they begin with, in that file."""
    return tuple(f"tests/{file}.py::test_{name}" for name in names)
