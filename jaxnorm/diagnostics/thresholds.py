"""The thresholds of the diagnoses, and what is far by them."""

import math

import numpy as np

from jaxnorm.diagnostics.figures import FAR, LOG_FAR, Figures, Values

# What is far off is so by more standard errors, too. Features that mix few inputs vary
# together: four told of networks that are well, by 16 samples.
ERRORS = 5.0
MINORITY = 0.1  # a norm is faulty if more than this share of its features is
EXPLAINED = 0.5  # at most this share of what is far may be left, for a cause to explain it
LEAST_DECAY = 0.5
LEAST_COUNT = 8  # in a mean
LEAST_SAMPLES = 16  # to judge a gap by, or a unit
MOST_PADDING = 0.05
MOST_SATURATED = 0.5
MOST_APART = 0.25
PRECISION = 0.1


def many(flags: Values) -> bool:
    """Whether more features are flagged than may be in a norm that is well.

    >>> many(np.array([True] + 9 * [False])), many(np.array([True, False]))
    (False, True)
    """
    return bool(np.mean(flags) > MINORITY)


def far(norm: Figures) -> bool:
    """Whether the running statistics are far from the moments of the batches.

    Where a feature is dead, σ says nothing; there it is left out.
    """
    if norm.distance is None or norm.log_ratio is None or norm.samples < LEAST_SAMPLES:
        return False
    # Less four, for a variance of few samples is often far too small.
    error = ERRORS / math.sqrt(norm.samples - 4)
    mean = np.abs(norm.distance) > max(FAR, error)
    var = np.abs(norm.log_ratio) > max(LOG_FAR, math.sqrt(2) * error)
    return many((mean | var) & (norm.dead == 0))
