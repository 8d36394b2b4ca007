"""Patterns of names, compared with the regular expression that they stand for."""

import re

from hypothesis import given
from hypothesis import strategies as st

from jaxnorm.model.patterns import matcher


def by_regular_expression(pattern, name):
    stars = {"**": "(.*)", "*": r"([^.]*)"}
    parts = re.split(r"(\*\*|\*)", pattern)
    found = re.fullmatch("".join(stars.get(each, re.escape(each)) for each in parts), name)
    return found and found.groups()


@given(st.text("ab.*", max_size=8), st.text("ab.", max_size=10))
def test_stars_match_what_they_do_in_a_regular_expression(pattern, name):
    assert matcher(pattern, ".")(name) == by_regular_expression(pattern, name)


def test_many_stars_come_to_an_end():
    """For a regular expression, not in the lifetime of a star."""
    assert matcher("a*" * 30 + "b", ".")("a" * 200) is None
    assert matcher("**." * 30 + "b", ".")("a." * 100) is None
