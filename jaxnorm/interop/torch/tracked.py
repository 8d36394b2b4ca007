"""The norms of torch that may have running statistics, each as jaxnorm's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnorm.interop.arrays import to_jax
from jaxnorm.interop.layouts import counted
from jaxnorm.interop.norm import Norm, affine
from jaxnorm.interop.torch.names import COUNT, arrays_of
from jaxnorm.statistics.averages import cumulative, ema


def batch_norm(
    state: Mapping[str, Any],
    prefix: str = "",
    *,
    momentum: float | None = 0.1,
    epsilon: float = 1e-5,
    axis: int = -1,
) -> Norm:
    """BatchNorm1d, 2d, 3d or SyncBatchNorm.

    The average is that of torch, `ema(1 − momentum, unbiased=True)`, as its running
    variance is m/(m − 1)·σ²; with momentum=None `cumulative(unbiased=True)`, whose age is
    num_batches_tracked, or 0 if that is missing. Without running statistics torch
    normalises with the batch in evaluation too: train=True and update=False say so.

    Args:
      state: names to arrays: weight, bias, running_mean, running_var and
        num_batches_tracked, each where the norm has it.
      prefix: what comes before these names and a dot.
      momentum: as given to torch: the weight of the new value, or None.
      epsilon: as given to torch.
      axis: the feature axis of the x that it will get, -1 for channels last.

    Returns:
      A Norm for `BatchNorm`. Several devices are one batch with axis_name, as in flax.

    Raises:
      TypeError: a value is no array of numbers.
      ValueError: names are left over or missing, shapes differ, or a momentum is outside
        [0, 1].

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
            rules=("no running statistics: it normalises with the batch, always",),
        )
    rules = ["weight → scale, running_mean → mean, running_var → var"]
    if momentum is None:
        options["estimator"] = cumulative(unbiased=True)
        tracked = arrays.get(COUNT, np.int64(0))
        updates = counted(statistics["mean"].shape).into(np.asarray(tracked))
        statistics["updates"] = to_jax(updates)
        rules.append(f"{COUNT} → updates" + ("" if COUNT in arrays else ", missing, so 0"))
        return Norm("BatchNorm", options, params, statistics, {}, tuple(rules))
    options["estimator"] = ema(1 - momentum, unbiased=True)
    return Norm("BatchNorm", options, params, statistics, *_without_count(arrays, rules))


def instance_norm(
    state: Mapping[str, Any],
    prefix: str = "",
    *,
    momentum: float | None = 0.1,
    epsilon: float = 1e-5,
    axis: int = -1,
) -> Norm:
    """InstanceNorm1d, 2d or 3d, with or without running statistics.

    With them torch evaluates as a batch norm does, so that it is one here: a `BatchNorm`
    with ghosts of one sample. Its outputs are torch's, in training and in
    evaluation, and its running mean. The variance that it goes on with has in
    it how far the means of the samples lie apart, where torch has the mean of their
    unbiased variances; `tracked_instance_norm` follows as torch does. With
    momentum=None the statistics never change, as in torch.

    Args:
      state: as of `batch_norm`.
      prefix: what comes before these names and a dot.
      momentum: as given to torch, where there are running statistics.
      epsilon: as given to torch.
      axis: the feature axis of the x that it will get, -1 for channels last.

    Returns:
      A Norm for `InstanceNorm`, or for `BatchNorm` if there are running statistics.

    Raises:
      TypeError: a value is no array of numbers.
      ValueError: as of `batch_norm`.

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
    """What is not kept of a norm whose average has no age, and the rules with it."""
    if COUNT not in arrays:
        return {}, tuple(rules)
    rule = f"{COUNT}: not kept, the average has no age"
    # A copy: torch goes on counting in its own.
    return {COUNT: np.array(arrays[COUNT])}, (*rules, rule)
