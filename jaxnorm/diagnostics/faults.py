"""The faults: by what figures each is known, and in words what is wrong and what to do."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxnorm.diagnostics.figures import Figures
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
    """What is likely wrong at a norm.

    Attributes:
      fault: its name, such as "never updated".
      norm: the path of the norm's variables.
      words: what is likely wrong, and what to do.
    """

    fault: str
    norm: str
    words: str


def diagnoses_of(norms: Sequence[Figures]) -> tuple[Diagnosis, ...]:
    """What is likely wrong at each of the norms, which are in the order of their calls.

    Of the faults of running statistics each norm has one at most, the first of the table;
    and values that are not finite are told of the first norm only that has them.
    """
    spoilt = [norm.name for norm in norms if any(norm.nonfinite)][:1]
    found = []
    for norm in norms:
        found += _said(norm, STATISTICS)[:1] + _said(norm, OTHERS)
        found += _said(norm, FIRST) if norm.name in spoilt else []
    return tuple(found)


def _said(norm: Figures, rules: Mapping[str, Rule]) -> list[Diagnosis]:
    said = ((fault, rule(norm)) for fault, rule in rules.items())
    return [Diagnosis(fault, norm.name, words) for fault, words in said if words]


def _trains_in_evaluation(norm: Figures) -> str | None:
    if not norm.eval.by_batch:
        return None
    return (
        "it normalises with the batch in evaluation, too → pass the train flag on to it, "
        "or call model.eval()"
    )


def _small(norm: Figures) -> str | None:
    if not norm.train.by_batch or norm.train.corrected or norm.count >= LEAST_COUNT:
        return None
    mend = (
        "a larger ghost_size="
        if norm.train.ghost_size
        else "larger batches, or axis_name= over devices, BatchRenorm, GroupNorm"
    )
    return f"a mean of {norm.count:.3g} samples is mostly noise → {mend}"


def _padding(norm: Figures) -> str | None:
    if not MOST_PADDING < norm.padding < 1:
        return None
    what = "outside the mask" if norm.train.weighted else "and there is no mask"
    return (
        f"{norm.padding:.0%} of the positions look like padding {what}: it leaks into the "
        "moments → pass mask= or weights="
    )


def _dead(norm: Figures) -> str | None:
    # A norm of samples has moments of padding, too.
    flags = norm.constant > (0.5 if norm.train.trains is not None else 0.99)
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} features are constant, their output is β → look at "
        "the layer before: dead units, constant inputs, or one sample to a mean"
    )


def _epsilon(norm: Figures) -> str | None:
    flags = (norm.dead > 0.5) & (norm.constant <= 0.5)
    if not many(flags):
        return None
    return (
        f"the variance of {flags.sum()} of {flags.size} features is under "
        f"ε = {norm.train.epsilon:g}, which rules the output → a smaller epsilon=, or "
        "larger inputs"
    )


def _small_scale(norm: Figures) -> str | None:
    flags = norm.small_scale
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} scales γ are near zero: these features are "
        "constant → prune them; where residual branches start at γ = 0, train on"
    )


def _saturated(norm: Figures) -> str | None:
    if norm.saturated is None:
        return None
    if norm.one_sided:
        flags = norm.saturated == 1
        found = many(flags) and norm.samples >= LEAST_SAMPLES
        what = f"{flags.sum()} of {flags.size} units are dead: saturated on every sample"
    else:
        found = bool(np.mean(norm.saturated) > MOST_SATURATED)
        what = f"{np.mean(norm.saturated):.0%} of the outputs are saturated"
    return f"{what} → a smaller |γ| or |β|, a smaller learning rate" if found else None


def _imprecise(norm: Figures) -> str | None:
    if not norm.train.by_batch or norm.train.corrected:
        return None
    flags = (np.abs(norm.precision - 1) > PRECISION) & (norm.dead == 0)
    if not many(flags):
        return None
    return (
        f"its output has {np.median(norm.precision[flags]):.3g} times the deviation that "
        "it should: E[x²] − E[x]² cancels → use_fast_variance=False, or jaxnorm's norm"
    )


def _apart(norm: Figures) -> str | None:
    if not norm.train.by_batch or not np.median(norm.apart) > MOST_APART:
        return None
    return (
        f"{np.median(norm.apart):.0%} of the variance lies between the batches: they are "
        "not alike, as of sorted data → shuffle; then train or calibrate again"
    )


def _nonfinite(norm: Figures) -> str | None:
    into, out_of = norm.nonfinite
    if into:
        return (
            f"the first norm with NaN or infinity: {into} values come in → look at the "
            "data and the layers before; skip_nonfinite keeps them out of statistics"
        )
    return (
        f"{out_of} values come out NaN or infinite of a finite input: the norm makes "
        "them → look at γ, β and ε, and for a variance that overflows"
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
