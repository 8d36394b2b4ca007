"""Calibration of an NNX model: its batch norms' statistics, measured again as it is now."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
from flax import nnx
from tqdm import tqdm

from jaxnorm.calibration import PREFIX, check_collected, settled
from jaxnorm.moments import Moments
from jaxnorm.nnx.batch import BatchNorm


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

    See `jaxnorm.calibrate` for what for, and for the source. The model is changed, as NNX
    has it: all statistics at the end and at once, and if it is stopped before, none.
    Other layers are as they were set: `model.eval()` before turns dropout off.

    Args:
      model: with `jaxnorm.nnx.BatchNorm`s in it, or `BatchRenorm`s.
      batches: what call takes, one after another.
      call: `call(model, batch)`; compiled once a shape of batch.
      behind: whether a norm is measured behind norms that normalise with each "batch", as
        in training, or with the "running" statistics as they were before.
      unbiased: whether the variance is multiplied by N/(N − 1), of all N samples.
      progress: whether to show a bar on stderr.

    Raises:
      ValueError: there are no batches, or no norms, or a norm had none of the batches.

    >>> import jaxnorm.nnx as jx
    >>> model = jx.BatchNorm(1, rngs=nnx.Rngs(0))
    >>> calibrate(model, [jnp.array([[1.0], [3.0]])], progress=False)
    >>> model.mean[...], model.var[...]
    (Array([2.], dtype=float32), Array([2.], dtype=float32))
    """
    if behind not in ("batch", "running"):
        raise ValueError(f"behind={behind!r}, but 'batch' or 'running' is expected.")
    norms = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, BatchNorm)
    }
    if not norms:
        raise ValueError(
            f"there is no jaxnorm.nnx.BatchNorm in the {type(model).__name__}; give the "
            "model that holds them."
        )
    modes = {name: (each.use_running_average, each.update) for name, each in norms.items()}

    @nnx.jit
    def step(model: Any, batch: Any) -> None:
        call(model, batch)

    try:
        for norm in norms.values():
            norm.use_running_average, norm.update = behind == "running", True
            for name, value in Moments.empty(norm.mean.shape)._asdict().items():
                setattr(norm, PREFIX + name, nnx.BatchStat(value))
        for batch in tqdm(batches, "calibrating", unit="batch", disable=not progress):
            step(model, batch)
            # Or batches would pile up, or be overwritten in a loader's buffer.
            jax.block_until_ready(nnx.state(model, nnx.BatchStat))
        collected = {name: _collected(norm) for name, norm in norms.items()}
    finally:
        for name, norm in norms.items():
            norm.use_running_average, norm.update = modes[name]
            for field in Moments._fields:
                if hasattr(norm, PREFIX + field):
                    delattr(norm, PREFIX + field)
    check_collected(collected)
    for name, norm in norms.items():
        kept = {
            field: getattr(norm, field)[...]
            for field in Moments._fields
            if hasattr(norm, field)
        }
        for field, value in settled(kept, collected[name], unbiased=unbiased).items():
            getattr(norm, field)[...] = value


def _collected(norm: BatchNorm) -> Moments:
    return Moments(*(getattr(norm, PREFIX + name)[...] for name in Moments._fields))
