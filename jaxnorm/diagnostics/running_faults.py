"""The faults of running statistics; at most one is reported for all calls of a norm."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from jaxnorm.diagnostics.metrics import NormMetrics
from jaxnorm.diagnostics.thresholds import EXPLAINED, LEAST_DECAY, apart, far

Rule = Callable[[NormMetrics], str | None]
# For the calls of one norm.
RuleOfCalls = Callable[[Sequence[NormMetrics]], str | None]


def _of_any(rule: Rule) -> RuleOfCalls:
    """What a rule says of the first call that it applies to."""
    return lambda calls: next(filter(None, map(rule, calls)), None)


def _gap(norm: NormMetrics) -> str:
    """How far the running statistics are off, as a phrase for messages."""
    assert norm.distance is not None
    assert norm.log_ratio is not None
    off, ratio = np.median(np.abs(norm.distance)), np.exp(np.median(norm.log_ratio))
    return f"mean off by {off:.2g}σ, variance ×{ratio:.2g} in the median feature"


def _misleads(norm: NormMetrics) -> bool:
    """Whether evaluation differs from training, which it does not for a frozen norm."""
    return norm.train.by_batch and far(norm)


def _nonfinite(norm: NormMetrics) -> str | None:
    if norm.running_mean is None or norm.running_var is None:
        return None
    bad = ~(np.isfinite(norm.running_mean) & np.isfinite(norm.running_var))
    return (
        f"{bad.sum()} running statistics are NaN or infinite: one bad batch makes them so "
        "for good → calibrate, and wrap the estimator in skip_nonfinite for training"
        if bad.any()
        else None
    )


def _negative(norm: NormMetrics) -> str | None:
    if norm.running_var is None or not (norm.running_var < 0).any():
        return None
    return (
        f"{(norm.running_var < 0).sum()} running variances are negative, from cancellation "
        "or a checkpoint in another order → calibrate; compute variances about the mean"
    )


def _never_updated(norm: NormMetrics) -> str | None:
    if norm.running_mean is None or norm.running_var is None:
        return None
    at_start = not norm.running_mean.any() and (norm.running_var == 1).all()
    if (not at_start and norm.updates != 0) or norm.pending:
        return None
    start = "the running statistics are still the initial mean 0 and variance 1: "
    if norm.train.decay == 1:
        return start + "a decay of 1 freezes them → use a decay (momentum) below 1"
    if norm.train.trains is False:
        return start + "the norm evaluates in training too → pass the train flag to it"
    return start + (
        "no update was kept → keep the batch_stats that apply returns (Linen), or the "
        "trained model (NNX); or calibrate"
    )


def _swapped(norm: NormMetrics) -> str | None:
    decay = norm.train.decay
    if decay is None or decay > LEAST_DECAY or not norm.train.by_batch:
        return None
    return (
        f"momentum={decay:g} forgets all but the last batches: torch's momentum is "
        f"1 − flax's → set momentum={1 - decay:g}, and calibrate"
    )


def _shared(calls: Sequence[NormMetrics]) -> str | None:
    if not any(map(_misleads, calls)):
        return None
    first, *others = calls
    if not any(apart(first, each) for each in others):
        return None
    return (
        f"called {len(calls)} times per pass, on inputs of different mean or variance, of "
        "which its running statistics are a mixture: evaluation normalises no call as "
        "training does → use a separate norm for each call"
    )


def _too_few(norm: NormMetrics) -> str | None:
    start, decay = norm.start, norm.train.decay
    if start is None or not _misleads(norm) or not 0 < start < 1.1:
        return None
    if norm.unexplained > EXPLAINED:
        return None
    after = ""
    if decay is not None and 0 < decay < 1:
        after = f", as after {max(0, round(math.log(min(start, 1), decay)))} updates"
    return (
        f"{min(start, 1):.0%} of the average is still the initial mean 0 and variance 1"
        f"{after} → use ema(…, warmup=True), calibrate, or train longer before evaluating"
    )


def _mismatch(norm: NormMetrics) -> str | None:
    if not _misleads(norm):
        return None
    return (
        f"the running statistics are of other data or other weights ({_gap(norm)}) → "
        "calibrate on data like this, or scale inputs as in training"
    )


STATISTICS: Mapping[str, RuleOfCalls] = MappingProxyType(
    {
        "non-finite statistics": _of_any(_nonfinite),
        "negative variance": _of_any(_negative),
        "never updated": _of_any(_never_updated),
        "momentum swapped": _of_any(_swapped),
        "shared norm": _shared,
        "too few updates": _of_any(_too_few),
        "statistics mismatch": _of_any(_mismatch),
    }
)
