"""Running a model over batches, and what was observed made into a report."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnorm.diagnostics.activations import Activation, active_range
from jaxnorm.diagnostics.faults import diagnoses_of
from jaxnorm.diagnostics.figures import figures_of
from jaxnorm.diagnostics.gap import Differences, gap_of
from jaxnorm.diagnostics.observing import Call
from jaxnorm.diagnostics.report import NormReport

# What a batch gives: the calls of norms in training and in evaluation, and how the outputs
# differ.
Seen = tuple[list[Call], list[Call], Differences]


def as_batches(batches: Any) -> Iterable[Any]:
    """An array, or a dict of arrays, is one batch; all else is batch after batch."""
    one = isinstance(batches, jax.Array | np.ndarray | Mapping)
    return [batches] if one else batches


def compiled(step: Callable[..., Seen], **fixed: Any) -> Callable[..., Seen]:
    """The step, compiled for what is fixed: once for the same, if that has a hash."""
    try:
        hash(tuple(fixed.values()))
    except TypeError:  # as a model with a list in it
        return jax.jit(functools.partial(step, **fixed))
    return functools.partial(jax.jit(step, static_argnames=tuple(fixed)), **fixed)


def report_of(
    step: Callable[[Any], Seen], batches: Any, activation: Activation
) -> NormReport:
    """Runs a step on each batch, and says what was seen.

    Raises:
      ValueError: there are no batches, or no norms in the model.
    """
    steps = [jax.device_get(step(batch)) for batch in as_batches(batches)]
    if not steps:
        raise ValueError(
            "there are no batches; give an array, or several in a list (an iterator that "
            "was used up gives none)."
        )
    train, evaluated = ([by_name(each[mode]) for each in steps] for mode in (0, 1))
    # Of a norm that is called in one mode only there is nothing to compare. Not every batch
    # need call each, as of sequences of other lengths.
    pairs = zip(train, evaluated, strict=True)
    names = list(dict.fromkeys(name for t, e in pairs for name in t if name in e))
    if not names:
        raise ValueError(
            "no norm was called; give a model with norms of jaxnorm or flax in it, which "
            "are not inside nn.scan or nn.vmap of Linen."
        )
    norms = tuple(
        figures_of(
            name,
            [calls[name] for calls in train if name in calls],
            [calls[name] for calls in evaluated if name in calls],
            active_range(activation, _first(train, name).setting.path),
        )
        for name in names
    )
    return NormReport(norms, gap_of([each[2] for each in steps]), diagnoses_of(norms))


def _first(calls: Iterable[dict[str, Call]], name: str) -> Call:
    return next(each[name] for each in calls if name in each)


def by_name(calls: Iterable[Call]) -> dict[str, Call]:
    """The calls in their order, by the norm's path, and which call of several it is.

    A call that was mapped, as in nnx.scan, is one of each index, as in "path[0]".
    """
    named, times = {}, Counter()
    for call in sorted(calls, key=lambda each: each.setting.place):
        for index in np.ndindex(np.shape(call.observed.number)):
            path = "".join([call.setting.path or "the norm", *(f"[{i}]" for i in index)])
            times[path] += 1
            name = path if times[path] == 1 else f"{path}, call {times[path]}"
            observed = jax.tree.map(lambda each, index=index: each[index], call.observed)
            named[name] = call._replace(observed=observed)
    return named
