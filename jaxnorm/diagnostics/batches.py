"""Runs a model over batches, and makes a report of what was observed."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnorm.diagnostics.activations import Activation, active_range
from jaxnorm.diagnostics.faults import diagnoses_of
from jaxnorm.diagnostics.gap import Differences, differences, gap_of
from jaxnorm.diagnostics.metrics import Observation, metrics_of
from jaxnorm.diagnostics.observing import Call, observe
from jaxnorm.diagnostics.report import NormReport

# `run(batch, train=…)` returns the output of the model, and the calls of its norms.
Run = Callable[..., tuple[Any, list[Call]]]
# Observed on a batch: the calls of norms in training and in evaluation by name, and how the
# outputs differ.
Seen = tuple[dict[str, Observation], dict[str, Observation], Differences]


def as_batches(batches: Any) -> Iterable[Any]:
    """Takes an array or a dict of arrays as a single batch, anything else as batches."""
    one = isinstance(batches, jax.Array | np.ndarray | Mapping)
    return [batches] if one else batches


def compiled(run: Run, **fixed: Any) -> Run:
    """Compiles `run` for the fixed arguments, and caches it if they are hashable."""
    try:
        hash(tuple(fixed.values()))
    except TypeError:  # such as a model that contains a list
        return jax.jit(functools.partial(run, **fixed), static_argnames="train")
    return functools.partial(jax.jit(run, static_argnames=("train", *fixed)), **fixed)


def report_of(run: Run, batches: Any, activation: Activation) -> NormReport:
    """Runs a model on each batch in both modes, and reports what was observed.

    Raises:
      ValueError: there are no batches, or no norms in the model.
    """
    steps = [_seen(run, batch, activation) for batch in as_batches(batches)]
    if not steps:
        raise ValueError(
            "there are no batches; pass an array, or several in a list (an exhausted "
            "iterator has none)."
        )
    train = [each[0] for each in steps]
    evaluated = [each[1] for each in steps]
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


def _first(calls: Iterable[dict[str, Observation]], name: str) -> Observation:
    return next(each[name] for each in calls if name in each)


def _seen(run: Run, batch: Any, activation: Activation) -> Seen:
    """Runs a model on a batch in both modes, and compares the outputs."""
    train, output = _seen_in_mode(run, batch, activation, train=True)
    evaluated, other = _seen_in_mode(run, batch, activation, train=False)
    return train, evaluated, jax.device_get(_compared(output, other))


def _seen_in_mode(
    run: Run, batch: Any, activation: Activation, *, train: bool
) -> tuple[dict[str, Observation], Any]:
    """Returns what was observed of the norms, and the output of the model.

    The arrays of the calls are freed on return, before the other mode needs as much memory.
    """
    output, calls = run(batch, train=train)
    return observations_of(calls, activation), output


@jax.jit
def _compared(train: Any, evaluated: Any) -> Differences:
    return differences(train, evaluated)


def observations_of(calls: list[Call], activation: Activation) -> dict[str, Observation]:
    """Observes calls, in order, by the norm's path, and the number of the call if repeated.

    A mapped call, as in nnx.scan, is split into one per index, such as "path[0]".
    """
    named, times = {}, Counter()
    for call in sorted(calls, key=lambda each: each.setting.place):
        active = active_range(activation, call.setting.path)
        for index in np.ndindex(call.index.shape):
            path = "".join([call.setting.path or "the norm", *(f"[{i}]" for i in index)])
            times[path] += 1
            name = path if times[path] == 1 else f"{path}, call {times[path]}"
            arrays = jax.tree.map(lambda each, index=index: each[index], call.arrays)
            named[name] = Observation(call.setting, observe(call.setting, arrays, active))
    # One by one, since a tree of dicts would come back sorted by name.
    return {name: jax.device_get(each) for name, each in named.items()}
