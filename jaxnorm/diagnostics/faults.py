"""What is found at a norm: faults, with how to fix them, and notes.

A fault makes evaluation wrong, or training. A note is a fact that is worth knowing, but
true of many networks that are right as well, so it gives no advice.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

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
      norm: the name of the norm in the report.
      words: what is probably wrong, and how to fix it.
    """

    fault: str
    norm: str
    words: str


class Note(NamedTuple):
    """A fact about a norm, or the layer before it, that need not be wrong.

    Attributes:
      note: its name, such as "dead features".
      norm: the name of the norm in the report.
      words: the fact.
    """

    note: str
    norm: str
    words: str


def diagnoses_of(norms: Sequence[NormMetrics]) -> tuple[Diagnosis, ...]:
    """What is probably wrong with each of the norms, given in the order of their calls.

    For each norm at most one fault of the running statistics is reported, the first in the
    table, at the first of its calls; non-finite values are reported only for the first norm
    that has them.
    """
    calls: dict[str, list[NormMetrics]] = {}
    for norm in norms:
        calls.setdefault(norm.path, []).append(norm)
    spoilt = [norm.name for norm in norms if any(norm.nonfinite)][:1]
    found = []
    for norm in norms:
        if norm is calls[norm.path][0]:
            found += _said(norm.name, calls[norm.path], STATISTICS)[:1]
        found += _said(norm.name, norm, OTHERS)
        found += _said(norm.name, norm, FIRST) if norm.name in spoilt else []
    return tuple(Diagnosis(*each) for each in found)


def notes_of(norms: Sequence[NormMetrics]) -> tuple[Note, ...]:
    """Facts about each of the norms, given in the order of their calls."""
    return tuple(Note(*each) for norm in norms for each in _said(norm.name, norm, NOTED))


def _said(
    name: str, of: Any, rules: Mapping[str, Callable[[Any], str | None]]
) -> list[tuple[str, str, str]]:
    """What the rules say of a call of a norm, or several."""
    said = ((found, rule(of)) for found, rule in rules.items())
    return [(found, name, words) for found, words in said if words]


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


def _single(norm: NormMetrics) -> str | None:
    if norm.train.trains is not None or norm.count > 1:
        return None
    what = "its size" if norm.train.about_zero else "itself, which leaves 0"
    return (
        f"each value is normalised by {what}, whatever it is → reduce over more axes, use "
        "larger groups, or leave out the norm"
    )


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
        f"{flags.sum()} of {flags.size} features are constant in these batches: the layer "
        "before never activates them, as after pruning, and their output is constant too"
    )


def _low_variance(norm: NormMetrics) -> str | None:
    flags = (norm.dead > 0.5) & (norm.constant <= 0.5)
    if not many(flags):
        return None
    return (
        f"the variance of {flags.sum()} of {flags.size} features is below "
        f"ε = {norm.train.epsilon:g}: the layer before hardly activates them, and the norm "
        "does not scale them up to 1; a trained network relies on this ε"
    )


def _small_scale(norm: NormMetrics) -> str | None:
    flags = norm.small_scale
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} scales γ are near zero, so the output of these "
        "features is β: they are pruned, or γ was initialised at 0 and hardly trained"
    )


def _dead_units(norm: NormMetrics) -> str | None:
    if norm.saturated is None or not norm.one_sided or norm.samples < LEAST_SAMPLES:
        return None
    # Units that other notes explain are left out.
    flags = (norm.saturated == 1) & (norm.constant <= 0.5) & ~norm.small_scale
    if not many(flags):
        return None
    return (
        f"{flags.sum()} of {flags.size} units are saturated on every sample, so hardly any "
        "gradient passes through them"
    )


def _saturated(norm: NormMetrics) -> str | None:
    if norm.saturated is None or norm.one_sided:
        return None
    share = np.mean(norm.saturated)
    if share <= MOST_SATURATED:
        return None
    return f"{share:.0%} of outputs are saturated → reduce |γ| or |β|, or the learning rate"


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


def _batches_differ(norm: NormMetrics) -> str | None:
    if not norm.train.by_batch or not np.median(norm.apart) > MOST_APART:
        return None
    return (
        f"{np.median(norm.apart):.0%} of the variance lies between batches: they differ "
        "systematically, as in sorted data → shuffle, then train or calibrate again"
    )


def _nonfinite_values(norm: NormMetrics) -> str | None:
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
        "one sample per mean": _single,
        "batches differ": _batches_differ,
        "padding leaks": _padding,
        "saturated": _saturated,
        "imprecise": _imprecise,
    }
)
FIRST: Mapping[str, Rule] = MappingProxyType({"non-finite values": _nonfinite_values})
FAULTS = (*STATISTICS, *OTHERS, *FIRST)
NOTED: Mapping[str, Rule] = MappingProxyType(
    {
        "dead features": _dead,
        "low variance": _low_variance,
        "scales near zero": _small_scale,
        "dead units": _dead_units,
    }
)
NOTES = tuple(NOTED)
