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
    """Whether evaluation normalises otherwise than training, in more than few features."""
    if norm.distance is None or norm.log_ratio is None:
        return False
    constant = norm.constant > 0
    with np.errstate(all="ignore"):
        running = norm.distance * np.exp(-norm.log_ratio / 2)
    # A constant has no variance to compare, and may be a feature that is rarely active. In
    # evaluation, it is off by this many standard deviations of the running statistics.
    distance = np.where(constant, running, norm.distance)
    log_ratio = np.where(constant, 0, norm.log_ratio)
    # Multiplied by a scale of 0, features may be off as far as they like.
    return many(_off(distance, log_ratio, norm.samples) & ~norm.small_scale)


def apart(one: NormMetrics, other: NormMetrics) -> bool:
    """Whether two calls of a norm are on different distributions."""
    epsilon = one.train.epsilon
    # Constants cannot be compared by their own variances, but by those of both calls.
    mean_var = (one.batch_var + other.batch_var) / 2 + epsilon
    with np.errstate(all="ignore"):
        distance = (one.batch_mean - other.batch_mean) / np.sqrt(mean_var)
        log_ratio = np.log((one.batch_var + epsilon) / (other.batch_var + epsilon))
    samples = min(one.samples, other.samples)
    return many(_off(distance, log_ratio, samples) & ~one.small_scale)


def _off(distance: Values, log_ratio: Values, samples: float) -> Values:
    """Which features are far off, and by more than the errors of so many samples."""
    if samples < LEAST_SAMPLES:
        return np.zeros(distance.shape, bool)
    # Minus four, because the variance of few samples is often far too small.
    error = ERRORS / math.sqrt(samples - 4)
    mean = np.abs(distance) > max(FAR, error)
    return mean | (np.abs(log_ratio) > max(LOG_FAR, math.sqrt(2) * error))
