"""Runs a model over batches, and makes a report of what was observed."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnorm.diagnostics.activations import Activation, active_range
from jaxnorm.diagnostics.faults import diagnoses_of, notes_of
from jaxnorm.diagnostics.gap import Differences, differences, gap_of
from jaxnorm.diagnostics.metrics import Observation, metrics_of
from jaxnorm.diagnostics.observing import Call, Recorded, Unexamined, observe
from jaxnorm.diagnostics.report import NormReport
from jaxnorm.diagnostics.table import listed

# `run(batch, train=…)` runs the model on a batch in a mode.
Run = Callable[..., Recorded]


class Seen(NamedTuple):
    """What was observed on a batch.

    Attributes:
      train: the calls of norms in training, by name.
      evaluated: those in evaluation.
      gap: how the outputs differ.
      unexamined: norms that may not have been observed.
    """

    train: dict[str, Observation]
    evaluated: dict[str, Observation]
    gap: Differences
    unexamined: list[Unexamined]


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
    # A norm that is called in one mode only cannot be compared. Not every batch need call
    # every norm, for example if sequences differ in length.
    both = (name for each in steps for name in each.train if name in each.evaluated)
    names = list(dict.fromkeys(both))
    unexamined = unexamined_of(steps, names)
    if not names:
        raise ValueError(
            "no norm was called; pass a model that contains norms of jaxnorm or flax, or "
            "modules with a norm_spec, not inside Linen's nn.scan or nn.vmap."
            f" {listed(unexamined)}".rstrip()
        )
    train, evaluated = [each.train for each in steps], [each.evaluated for each in steps]
    norms = tuple(
        metrics_of(
            name,
            [calls[name] for calls in train if name in calls],
            [calls[name] for calls in evaluated if name in calls],
            active_range(activation, _first(train, name).setting.path),
        )
        for name in names
    )
    gap = gap_of([each.gap for each in steps])
    return NormReport(norms, gap, diagnoses_of(norms), notes_of(norms), unexamined)


def unexamined_of(steps: Sequence[Seen], names: Sequence[str]) -> tuple[Unexamined, ...]:
    """Norms of the model that are not among those with these names, each once."""
    found, once, observed = {}, {}, set()
    for step in steps:
        found |= {each.path: each for each in step.unexamined}
        for name, (_, setting, _) in (step.train | step.evaluated).items():
            # A module that calls norms is examined in them.
            parts = setting.path.split("/")
            observed |= {"/".join(parts[:end]) for end in range(len(parts) + 1)}
            if name not in names:
                once[name] = Unexamined(name, setting.kind, "is called in one mode only")
    lost = (each for path, each in found.items() if path not in observed)
    return (*lost, *once.values())


def _first(calls: Iterable[dict[str, Observation]], name: str) -> Observation:
    return next(each[name] for each in calls if name in each)


def _seen(run: Run, batch: Any, activation: Activation) -> Seen:
    """Runs a model on a batch in both modes, and compares the outputs."""
    train, output, unexamined = _seen_in_mode(run, batch, activation, train=True)
    evaluated, other, also = _seen_in_mode(run, batch, activation, train=False)
    gap = jax.device_get(_compared(output, other))
    return Seen(train, evaluated, gap, unexamined + also)


def _seen_in_mode(
    run: Run, batch: Any, activation: Activation, *, train: bool
) -> tuple[dict[str, Observation], Any, list[Unexamined]]:
    """Returns what was observed of the norms, the output, and norms not observed.

    The arrays of the calls are freed on return, before the other mode needs as much memory.
    """
    output, calls, unexamined = run(batch, train=train)
    return observations_of(calls, activation), output, unexamined


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
            observed = observe(call.setting, arrays, active)
            named[name] = Observation(path, call.setting, observed)
    # One by one, since a tree of dicts would come back sorted by name.
    return {name: jax.device_get(each) for name, each in named.items()}
