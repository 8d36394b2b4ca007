"""The faults: which figures indicate each, what is wrong, and how to fix it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxnorm.diagnostics.metrics import NormMetrics
from jaxnorm.diagnostics.running_faults import STATISTICS, Rule
from jaxnorm.diagnostics.thresholds import (
    LEAST_COUNT,
    LEAST_SAMPLES,
    MOST_APART,
    MOST_PADDING,
    MOST_SATURATED,
    PRECISION,
    many,
)


class Diagnosis(NamedTuple):
    """What is probably wrong with a norm.

    Attributes:
      fault: its name, such as "never updated".
      norm: the path of the norm's variables.
      words: what is probably wrong, and how to fix it.
    """

    fault: str
    norm: str
    words: str


def diagnoses_of(norms: Sequence[NormMetrics]) -> tuple[Diagnosis, ...]:
    """What is probably wrong with each of the norms, given in the order of their calls.

    For each norm at most one fault of the running statistics is reported, the first in the
    table; non-finite values are reported only for the first norm that has them.
    """
    spoilt = [norm.name for norm in norms if any(norm.nonfinite)][:1]
    found = []
    for norm in norms:
        found += _said(norm, STATISTICS)[:1] + _said(norm, OTHERS)
        found += _said(norm, FIRST) if norm.name in spoilt else []
    return tuple(found)


def _said(norm: NormMetrics, rules: Mapping[str, Rule]) -> list[Diagnosis]:
    said = ((fault, rule(norm)) for fault, rule in rules.items())
    return [Diagnosis(fault, norm.name, words) for fault, words in said if words]


def _trains_in_evaluation(norm: NormMetrics) -> str | None:
    if not norm.eval.by_batch:
        return None
    return (
        "it normalises with the batch in evaluation too → pass the train flag to it, or "
        "call model.eval()"
    )


def _small(norm: NormMetrics) -> str | None:
    if not norm.train.by_batch or norm.train.corrected or norm.count >= LEAST_COUNT:
        return None
    mend = (
        "use a larger ghost_size="
        if norm.train.ghost_size
        else "use larger batches, axis_name= over devices, BatchRenorm or GroupNorm"
    )
    return f"a mean of {norm.count:.3g} samples is mostly noise → {mend}"


def _padding(norm: NormMetrics) -> str | None:
    if not MOST_PADDING < norm.padding < 1:
        return None
    what = "not masked out" if norm.train.weighted else "and there is no mask"
    return (
        f"{norm.padding:.0%} of the positions look like padding, {what}: it leaks into the "
        "moments → pass mask= or weights="
    )


def _dead(norm: NormMetrics) -> str | None:
    # A norm that normalises each sample by itself also has moments of padding.
    flags = norm.constant > (0.5 if norm.train.trains is not None else 0.99)
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} features are constant, so their output is β → look "
        "in the layer before for dead units, constant inputs, or one sample per mean"
    )


def _epsilon(norm: NormMetrics) -> str | None:
    flags = (norm.dead > 0.5) & (norm.constant <= 0.5)
    if not many(flags):
        return None
    return (
        f"the variance of {flags.sum()} of {flags.size} features is below "
        f"ε = {norm.train.epsilon:g}, which dominates the output → use a smaller epsilon=, "
        "or larger inputs"
    )


def _small_scale(norm: NormMetrics) -> str | None:
    flags = norm.small_scale
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} scales γ are near zero: these features are "
        "constant → prune them; if residual branches start at γ = 0, train longer"
    )


def _saturated(norm: NormMetrics) -> str | None:
    if norm.saturated is None:
        return None
    if norm.one_sided:
        flags = norm.saturated == 1
        found = many(flags) and norm.samples >= LEAST_SAMPLES
        what = f"{flags.sum()} of {flags.size} units are dead: saturated on every sample"
    else:
        found = bool(np.mean(norm.saturated) > MOST_SATURATED)
        what = f"{np.mean(norm.saturated):.0%} of the outputs are saturated"
    return f"{what} → reduce |γ| or |β|, or the learning rate" if found else None


def _imprecise(norm: NormMetrics) -> str | None:
    if not norm.train.by_batch or norm.train.corrected:
        return None
    flags = (np.abs(norm.precision - 1) > PRECISION) & (norm.dead == 0)
    if not many(flags):
        return None
    return (
        f"the output's standard deviation is {np.median(norm.precision[flags]):.3g} times "
        "its correct value: E[x²] − E[x]² cancels → set use_fast_variance=False, or use "
        "jaxnorm's norm"
    )


def _apart(norm: NormMetrics) -> str | None:
    if not norm.train.by_batch or not np.median(norm.apart) > MOST_APART:
        return None
    return (
        f"{np.median(norm.apart):.0%} of the variance lies between batches: they differ "
        "systematically, as in sorted data → shuffle, then train or calibrate again"
    )


def _nonfinite(norm: NormMetrics) -> str | None:
    into, out_of = norm.nonfinite
    if into:
        return (
            f"the first norm with NaN or infinity: {into} values in its input → check the "
            "data and the layers before; skip_nonfinite keeps them out of the statistics"
        )
    return (
        f"{out_of} output values are NaN or infinite, but the input is finite: the norm "
        "creates them → check γ, β and ε, and whether the variance overflows"
    )


OTHERS: Mapping[str, Rule] = MappingProxyType(
    {
        "trains in evaluation": _trains_in_evaluation,
        "batch too small": _small,
        "batches apart": _apart,
        "padding leaks": _padding,
        "dead features": _dead,
        "ε rules": _epsilon,
        "scales near zero": _small_scale,
        "saturated": _saturated,
        "imprecise": _imprecise,
    }
)
FIRST: Mapping[str, Rule] = MappingProxyType({"non-finite": _nonfinite})
FAULTS = (*STATISTICS, *OTHERS, *FIRST)
