"""Runs a model over batches, and makes a report of what was observed."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnorm.diagnostics.activations import Activation, active_range
from jaxnorm.diagnostics.faults import diagnoses_of
from jaxnorm.diagnostics.gap import Differences, gap_of
from jaxnorm.diagnostics.metrics import metrics_of
from jaxnorm.diagnostics.observing import Call
from jaxnorm.diagnostics.report import NormReport

# Observed on a batch: the calls of norms in training and in evaluation, and how the outputs
# differ.
Seen = tuple[list[Call], list[Call], Differences]


def as_batches(batches: Any) -> Iterable[Any]:
    """Takes an array or a dict of arrays as a single batch, anything else as batches."""
    one = isinstance(batches, jax.Array | np.ndarray | Mapping)
    return [batches] if one else batches


def compiled(step: Callable[..., Seen], **fixed: Any) -> Callable[..., Seen]:
    """Compiles the step for the fixed arguments, and caches it if they are hashable."""
    try:
        hash(tuple(fixed.values()))
    except TypeError:  # such as a model that contains a list
        return jax.jit(functools.partial(step, **fixed))
    return functools.partial(jax.jit(step, static_argnames=tuple(fixed)), **fixed)


def report_of(
    step: Callable[[Any], Seen], batches: Any, activation: Activation
) -> NormReport:
    """Runs a step on each batch, and reports what was observed.

    Raises:
      ValueError: there are no batches, or no norms in the model.
    """
    steps = [jax.device_get(step(batch)) for batch in as_batches(batches)]
    if not steps:
        raise ValueError(
            "there are no batches; pass an array, or several in a list (an exhausted "
            "iterator has none)."
        )
    train, evaluated = ([by_name(each[mode]) for each in steps] for mode in (0, 1))
    # A norm that is called in one mode only cannot be compared. Not every batch need call
    # every norm, for example if sequences differ in length.
    pairs = zip(train, evaluated, strict=True)
    names = list(dict.fromkeys(name for t, e in pairs for name in t if name in e))
    if not names:
        raise ValueError(
            "no norm was called; pass a model that contains norms of jaxnorm or flax, not "
            "inside Linen's nn.scan or nn.vmap."
        )
    norms = tuple(
        metrics_of(
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
    """The calls in order, by the norm's path, with the number of the call if repeated.

    A mapped call, as in nnx.scan, is split into one per index, such as "path[0]".
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
