"""The gap between a model's outputs in training and in evaluation."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Differences(NamedTuple):
    """The differences on one batch, each of shape ().

    Attributes:
      squares: Σ(evaluation − training)².
      training: Σ training².
      largest: max |evaluation − training|.
      changed: the number of predictions, argmax over the last axis, that differ.
      predictions: the number of predictions; 0 if the output is not one array of classes.
    """

    squares: Array
    training: Array
    largest: Array
    changed: Array
    predictions: Array


def differences(train: Any, evaluated: Any) -> Differences:
    """The differences of two outputs; arrays that are not floating are left out.

    NaN if the structures or shapes differ, for example if a head is used only in training.
    """
    if jax.tree.map(jnp.shape, train) != jax.tree.map(jnp.shape, evaluated):
        nan, nothing = jnp.full((), jnp.nan), jnp.zeros(())
        return Differences(nan, nan, nan, nothing, nothing)
    pairs = [
        (jnp.asarray(t, jnp.float32), jnp.asarray(e, jnp.float32))
        for t, e in zip(jax.tree.leaves(train), jax.tree.leaves(evaluated), strict=True)
        if jnp.issubdtype(jnp.result_type(t), jnp.floating) and jnp.size(t)
    ]
    nothing = jnp.zeros(())
    changed, predictions = nothing, 0
    if len(pairs) == 1 and pairs[0][0].ndim == 2 and pairs[0][0].shape[1] > 1:
        before, after = (jnp.argmax(each, axis=-1) for each in pairs[0])
        changed, predictions = jnp.sum(before != after), before.size
    return Differences(
        squares=sum((jnp.sum(jnp.square(e - t)) for t, e in pairs), nothing),
        training=sum((jnp.sum(jnp.square(t)) for t, _ in pairs), nothing),
        largest=jnp.max(jnp.stack([nothing, *(jnp.max(abs(e - t)) for t, e in pairs)])),
        changed=changed.astype(jnp.float32),
        predictions=jnp.asarray(predictions, jnp.float32),
    )


@dataclass(frozen=True)
class Gap:
    """How far outputs in evaluation differ from training, over all batches.

    Attributes:
      relative: √(Σ(evaluation − training)² / Σ training²).
      largest: max |evaluation − training|.
      changed: the share of predictions that differ; None if the output is not one array of
        shape (samples, classes).
    """

    relative: float
    largest: float
    changed: float | None


def gap_of(parts: list[Differences]) -> Gap:
    """The gap over all batches together."""
    squares, training, largest, changed, predictions = (
        [float(each[i]) for each in parts] for i in range(5)
    )
    total = sum(training)
    return Gap(
        relative=math.sqrt(sum(squares) / total) if total > 0 else math.nan,
        largest=max(largest) if all(map(math.isfinite, largest)) else math.nan,
        changed=sum(changed) / sum(predictions) if sum(predictions) else None,
    )
