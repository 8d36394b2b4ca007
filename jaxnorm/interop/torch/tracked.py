"""Converts torch's norms that may have running statistics."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnorm.interop.arrays import Arrays, to_jax
from jaxnorm.interop.layouts import counted
from jaxnorm.interop.norm import Norm, affine
from jaxnorm.interop.torch.names import COUNT, arrays_of
from jaxnorm.statistics.averages import cumulative, ema


def batch_norm(
    state: Arrays,
    prefix: str = "",
    *,
    momentum: float | None = 0.1,
    epsilon: float = 1e-5,
    axis: int = -1,
) -> Norm:
    """Converts BatchNorm1d, 2d, 3d or SyncBatchNorm.

    The estimator is torch's average, `ema(1 − momentum, unbiased=True)`, since torch's
    running variance is m/(m − 1)·σ². With momentum=None it is `cumulative(unbiased=True)`,
    with num_batches_tracked updates. Without running statistics, torch normalises with the
    batch in evaluation too; the options are then train=True and update=False.

    Args:
      state: names to arrays, or a path: weight, bias, running_mean, running_var and
        num_batches_tracked, if the norm has them.
      prefix: precedes these names, followed by a dot.
      momentum: as in torch: the weight of the new value, or None.
      epsilon: as in torch.
      axis: the feature axis of x, -1 for channels last.

    Returns:
      A Norm for `BatchNorm`. With axis_name, several devices share a batch, as in flax.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: names are left over or missing, shapes differ, or momentum is outside
        [0, 1]; with momentum=None, num_batches_tracked is missing.

    >>> state = {"bn.running_mean": np.float32([5.0]), "bn.running_var": np.float32([4.0])}
    >>> norm = batch_norm(state, "bn")
    >>> norm.batch_stats
    {'mean': Array([5.], dtype=float32), 'var': Array([4.], dtype=float32)}
    >>> norm.options["use_scale"], norm.options["estimator"].decay
    (False, 0.9)
    """
    arrays, params, statistics = arrays_of(state, prefix, tracked=True)
    options = {"axis": axis, "epsilon": epsilon, **affine(params)}
    if not statistics:
        return Norm(
            "BatchNorm",
            {**options, "train": True, "update": False},
            params,
            rules=("no running statistics: always normalises with the batch",),
        )
    rules = ["weight → scale, running_mean → mean, running_var → var"]
    if momentum is None:
        options["estimator"] = cumulative(unbiased=True)
        if COUNT not in arrays:
            raise ValueError(
                f"{COUNT} is missing, but with momentum=None the running statistics are "
                "the mean of so many batches; add it to the state, with 0 to start anew."
            )
        updates = counted(statistics["mean"].shape).into(np.asarray(arrays[COUNT]))
        statistics["updates"] = to_jax(updates)
        rules.append(f"{COUNT} → updates")
        return Norm("BatchNorm", options, params, statistics, {}, tuple(rules))
    options["estimator"] = ema(1 - momentum, unbiased=True)
    return Norm("BatchNorm", options, params, statistics, *_without_count(arrays, rules))


def instance_norm(
    state: Arrays,
    prefix: str = "",
    *,
    momentum: float | None = 0.1,
    epsilon: float = 1e-5,
    axis: int = -1,
) -> Norm:
    """Converts InstanceNorm1d, 2d or 3d, with or without running statistics.

    With running statistics, torch evaluates it like a batch norm, so it becomes a
    `BatchNorm` with ghost batches of one sample. The outputs in training and in evaluation
    and the running mean are the same as torch's. The running variance is updated with the
    spread of the samples' means included, where torch takes the mean of their unbiased
    variances; `tracked_instance_norm` updates it as torch does. With momentum=None the
    statistics never change, as in torch.

    Args:
      state: as for `batch_norm`.
      prefix: precedes these names, followed by a dot.
      momentum: as in torch, if there are running statistics.
      epsilon: as in torch.
      axis: the feature axis of x, -1 for channels last.

    Returns:
      A Norm for `InstanceNorm`, or for `BatchNorm` if there are running statistics.

    Raises:
      TypeError: a value is not an array of numbers.
      ValueError: as for `batch_norm`.

    >>> instance_norm({}).options["use_scale"]
    False
    """
    arrays, params, statistics = arrays_of(state, prefix, tracked=True)
    options = {"epsilon": epsilon, **affine(params)}
    if not statistics:
        return Norm("InstanceNorm", {**options, "feature_axes": axis}, params)
    options |= {
        "axis": axis,
        "ghost_size": 1,
        "estimator": ema(1.0 if momentum is None else 1 - momentum, unbiased=True),
    }
    rules = ["running statistics: a BatchNorm, in training with ghosts of one sample"]
    return Norm("BatchNorm", options, params, statistics, *_without_count(arrays, rules))


def _without_count(
    arrays: Mapping[str, Any], rules: list[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arrays that a norm without a count of updates does not keep, and the rules."""
    if COUNT not in arrays:
        return {}, tuple(rules)
    rule = f"{COUNT}: not kept, as the estimator has no count"
    # A copy, because torch keeps counting in its own array.
    return {COUNT: np.array(arrays[COUNT])}, (*rules, rule)
