"""Calibration of an NNX model: the statistics of its batch norms, measured again."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

from jaxnorm._core.moments import Moments
from jaxnorm._core.pairwise import Cascade
from jaxnorm.nnx.batch import BatchNorm
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
    """One of the moments collected of a norm's inputs."""


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
    """Measures the statistics of every batch norm of a model anew, at fixed weights.

    See `jaxnorm.calibrate` for when to use it, and the source. The model is changed, as NNX
    has it: the statistics of its norms at the end and at once, and nothing else; if it
    is stopped before, nothing. Other layers are as they were set, with the same random
    keys for every batch: `model.eval()` before turns dropout off.

    Args:
      model: with `jaxnorm.nnx.BatchNorm`s in it, or `BatchRenorm`s.
      batches: what call takes, one after another.
      call: `call(model, batch)`; compiled once a shape of batch.
      behind: whether a norm is measured behind norms that normalise with each "batch", as
        in training, or with the "running" statistics as they were before.
      unbiased: whether the variance is multiplied by N/(N − 1), of all N samples; as
        `population` does it itself, in the way that it was made.
      progress: whether to show a bar on stderr.

    Raises:
      ValueError: there are no batches, or no norms, or a norm had none of the batches, or
        one that is not finite.

    >>> import jaxnorm.nnx as jx
    >>> model = jx.BatchNorm(1, rngs=nnx.Rngs(0))
    >>> calibrate(model, [jnp.array([[1.0], [3.0]])], progress=False)
    >>> model.mean[...], model.var[...]
    (Array([2.], dtype=float32), Array([2.], dtype=float32))
    """
    check_behind(behind)
    if not _norms(model):
        raise ValueError(
            f"there is no jaxnorm.nnx.BatchNorm in the {type(model).__name__}; give the "
            "model that holds them."
        )
    graph, state = nnx.split(_measuring(model, behind))

    @jax.jit
    def step(state: Any, batch: Any) -> dict[str, Moments]:
        copy = nnx.merge(graph, state)
        call(copy, batch)
        return _collected(copy)

    cascade = Cascade(merge_collected)
    for batch in tqdm(batches, "calibrating", unit="batch", disable=not progress):
        cascade.add(finer(step(state, batch)))
    total = cascade.total()
    measured = _collected(nnx.merge(graph, state)) if total is None else rounded(total)
    check_collected(measured)
    for name, norm in _norms(model).items():
        kept = {
            each: variable[...]
            for each, variable in vars(norm).items()
            if isinstance(variable, nnx.BatchStat)
        }
        for each, value in settled(kept, measured[name], unbiased=unbiased).items():
            getattr(norm, each)[...] = value


def _norms(model: Any) -> dict[str, BatchNorm]:
    """The batch norms in a model, by their paths."""
    return {
        "/".join(map(str, path)) or "the norm": module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, BatchNorm)
    }


def _collected(model: Any) -> dict[str, Moments]:
    """What the norms of such a model have collected so far, by their paths."""
    return {
        name: Moments(*(getattr(norm, each)[...] for each in COLLECTORS))
        for name, norm in _norms(model).items()
    }


def _measuring(model: Any, behind: str) -> Any:
    """A copy of the model whose norms collect the moments of their inputs."""
    copy = nnx.clone(model)
    for norm in _norms(copy).values():
        norm.use_running_average, norm.update = behind == "running", True
        for name in COLLECTORS:
            setattr(norm, name, Collector(jnp.zeros_like(norm.mean[...])))
    return copy
