"""Plots of seeds, some of which diverged."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.harness import plotting

VALUES = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])


@pytest.fixture
def axes():
    return Figure().subplots()


def test_a_line_is_the_mean_of_the_seeds_that_did_not_diverge(axes):
    plotting.over_seeds(axes, [0, 1, 2], VALUES, arm="plain", label="plain")
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 2.0, np.nan])
    assert line.get_color() == plotting.COLOURS["plain"]


def test_crosses_are_where_a_seed_diverged(axes):
    plotting.diverged(axes, [10, 20, 30], VALUES, arm="plain")
    (crosses,) = axes.lines
    np.testing.assert_array_equal(crosses.get_xdata(), [20, 30])


def test_each_seed_is_a_dot_and_their_mean_a_bar(axes):
    values = {"one": VALUES[:, 0], "none": VALUES[:, 2]}
    plotting.each_seed(axes, values, dict.fromkeys(values, "plain"))
    dots, bar, empty = (line.get_xdata() for line in axes.lines)
    np.testing.assert_array_equal(dots, [1, 3])
    np.testing.assert_array_equal(bar, [2])
    assert len(empty) == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "none"]
