"""Calibration of an NNX model: remeasures the statistics of its batch norms."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

from jaxnorm._core.moments import Moments, merge_into
from jaxnorm._core.pairwise import Cascade
from jaxnorm.model.measuring import moments_of_input
from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.nnx.modules import NORMS
from jaxnorm.nnx.watching import Watched, watched
from jaxnorm.statistics.calibration import (
    check_behind,
    check_collected,
    finer,
    merge_collected,
    rounded,
    settled,
)
from jaxnorm.statistics.wrappers import COLLECTORS


class Collector(nnx.BatchStat):
    """A collected moment of a norm's inputs."""


def _call(model: Any, batch: Any) -> Any:
    return model(batch)


def calibrate(
    model: nnx.Module,
    batches: Iterable[Any],
    *,
    call: Callable[[Any, Any], Any] = _call,
    behind: Literal["batch", "running"] = "batch",
    unbiased: bool = True,
    progress: bool = True,
) -> None:
    """Remeasures the statistics of every batch norm of a model, at fixed weights.

    See `jaxnorm.calibrate` for when to use it, what happens to the old statistics, and the
    source. The model is changed in place: all its statistics are replaced at the end, and
    nothing else; if interrupted, the model is unchanged. Other layers run in their current
    mode, with the same random keys for every batch, so call `model.eval()` first to turn
    off dropout.

    Args:
      model: a model that contains norms with running statistics: those of jaxnorm.nnx and
        flax.nnx, and any others with a `norm_spec` (see `jaxnorm.NormSpec`).
      batches: the batches, as call takes them.
      call: `call(model, batch)`; defaults to `model(batch)`. Compiled once per batch shape.
      behind: what the norms before the measured one normalise with: each "batch", as in
        training, or their previous "running" statistics.
      unbiased: whether the variance is multiplied by N/(N − 1), for N samples in all;
        `population` applies its own correction instead.
      progress: whether to show a progress bar on stderr.

    Raises:
      ValueError: there are no batches or no norms; a norm received no batch or a non-finite
        one; behind is neither "batch" nor "running".

    >>> import jaxnorm.nnx as jx
    >>> model = jx.BatchNorm(1, rngs=nnx.Rngs(0))
    >>> calibrate(model, [jnp.array([[1.0], [3.0]])], progress=False)
    >>> model.mean[...], model.var[...]
    (Array([2.], dtype=float32), Array([2.], dtype=float32))
    """
    check_behind(behind)
    if not _norms(model):
        raise ValueError(
            f"{type(model).__name__} contains no norm with running statistics; give a "
            "model that has one."
        )
    graph, state = nnx.split(_measuring(model, behind))

    @jax.jit
    def step(state: Any, batch: Any) -> dict[str, Moments]:
        copy = nnx.merge(graph, state)
        call(copy, batch)
        return _collected(_inside(copy))

    cascade = Cascade(merge_collected)
    for batch in tqdm(batches, "calibrating", unit="batch", disable=not progress):
        cascade.add(finer(step(state, batch)))
    total = cascade.total()
    if total is None:
        measured = _collected(_inside(nnx.merge(graph, state)))
    else:
        measured = rounded(total)
    check_collected(measured)
    for name, norm in _norms(model).items():
        kept = {
            each: variable[...]
            for each, variable in vars(norm).items()
            if isinstance(variable, nnx.BatchStat)
        }
        for each, value in settled(kept, measured[name], unbiased=unbiased).items():
            getattr(norm, each).set_value(value)


def _norms(model: Any) -> dict[str, Any]:
    """The norms with running statistics in a model, by their paths."""
    return _named(dict(nnx.iter_modules(model)))


def _named(modules: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    return {
        "/".join(map(str, path)) or "the norm": module
        for path, module in modules.items()
        if module in NORMS and isinstance(getattr(module, "mean", None), nnx.BatchStat)
    }


def _collected(norms: dict[str, Any]) -> dict[str, Moments]:
    """What such norms have collected so far, by their paths."""
    return {
        name: Moments(*(getattr(norm, each)[...] for each in COLLECTORS))
        for name, norm in norms.items()
    }


def _measuring(model: Any, behind: str) -> Any:
    """Returns a copy of the model whose norms collect the moments of their inputs."""
    copy = nnx.clone(model)
    for norm in _norms(copy).values():
        norm.use_running_average = behind == "running"
        if isinstance(norm, BatchNorm):
            norm.update = True
        for name in COLLECTORS:
            setattr(norm, name, Collector(jnp.zeros_like(norm.mean[...])))
    return watched(copy, _is_measured_from_outside, _measured)


def _inside(copy: Any) -> dict[str, Any]:
    """The norms in such a copy, by their paths in the model that it was made of."""
    modules = dict(nnx.iter_modules(copy))
    watchers = {path for path, each in modules.items() if type(each) is Watched}

    def original(path: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(each for i, each in enumerate(path) if path[:i] not in watchers)

    return _named(
        {original(path): modules[path] for path in modules if path not in watchers}
    )


def _is_measured_from_outside(kind: type) -> bool:
    return NORMS.is_kind(kind) and not issubclass(kind, BatchNorm)


def _measured(
    path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls a norm that does not collect the moments of its input, and does it instead."""
    y = norm(*args, **kwargs)
    # A module that has no statistics of its own may hold a norm that has.
    is_measured = hasattr(module, COLLECTORS[0])
    moments = moments_of_input(NORMS, module, args, kwargs) if is_measured else None
    if moments is not None:
        collected = (getattr(module, each)[...] for each in COLLECTORS)
        flat = Moments(*(each.reshape(-1) for each in moments))
        merged = merge_into(Moments(*collected), flat)
        for name, value in zip(COLLECTORS, merged, strict=True):
            getattr(module, name).set_value(value)
    return y
