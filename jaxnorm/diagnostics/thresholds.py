"""The thresholds of the diagnoses, and the checks based on them."""

import math

import numpy as np

from jaxnorm.diagnostics.metrics import FAR, LOG_FAR, NormMetrics, Values

# A feature is far off only if it is off by more standard errors than this. Features that
# mix few inputs vary together: with four, healthy networks were reported at 16 samples.
ERRORS = 5.0
MINORITY = 0.1  # a norm is faulty if more than this share of its features is
EXPLAINED = 0.5  # a cause explains a gap if at most this much is left, relative to far
LEAST_DECAY = 0.5
LEAST_COUNT = 8  # samples per mean
LEAST_SAMPLES = 16  # needed to judge a gap, or a unit
MOST_PADDING = 0.05
MOST_SATURATED = 0.5
MOST_APART = 0.25
PRECISION = 0.1


def many(flags: Values) -> bool:
    """Whether more features are flagged than is normal in a healthy norm.

    >>> many(np.array([True] + 9 * [False])), many(np.array([True, False]))
    (False, True)
    """
    return bool(np.mean(flags) > MINORITY)


def far(norm: NormMetrics) -> bool:
    """Whether the running statistics are far from the moments of the batches.

    Dead features are left out, since their σ is meaningless.
    """
    if norm.distance is None or norm.log_ratio is None or norm.samples < LEAST_SAMPLES:
        return False
    # Minus four, because the variance of few samples is often far too small.
    error = ERRORS / math.sqrt(norm.samples - 4)
    mean = np.abs(norm.distance) > max(FAR, error)
    var = np.abs(norm.log_ratio) > max(LOG_FAR, math.sqrt(2) * error)
    return many((mean | var) & (norm.dead == 0))
