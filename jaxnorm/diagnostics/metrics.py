"""The figures of a norm: what was observed over all batches, as NumPy arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnorm._core.moments import Moments, merge
from jaxnorm.diagnostics.activations import Range
from jaxnorm.diagnostics.observing import Observed
from jaxnorm.diagnostics.settings import Setting

Values = np.ndarray
NEAR_ZERO = 1e-3  # for a scale
# A feature is far off beyond these limits, in σ and log σ².
FAR, LOG_FAR = 0.5, math.log(2.0)
MOST_FITTED = 2000  # features
SHARES = np.geomspace(1e-3, 1, 500)  # of an average that comes from batches


class Observation(NamedTuple):
    """A call of a norm.

    Attributes:
      path: of the norm's variables, the same for all its calls.
      setting: how the norm was made and called.
      observed: what it showed, in NumPy arrays.
    """

    path: str
    setting: Setting
    observed: Observed


@dataclass(frozen=True)
class NormMetrics:
    """One call of a norm, in training and in evaluation; arrays have a value per feature.

    σ is the standard deviation of the batches in training, √(σ² + ε).

    Attributes:
      name: its path, with the number of the call if there are several.
      path: the path of its variables, the same for all its calls.
      train: how it was called in training.
      eval: how it was called in evaluation.
      count: the number of samples per mean.
      samples: the number of entries of the first axis, in all batches together.
      batch_mean: the mean of the batches in training.
      batch_var: their variance.
      distance: running mean − batch mean, in σ; None without running statistics.
      log_ratio: log((running var + ε)/(batch var + ε)); None without running statistics.
      start: the share of the initial mean 0 and variance 1 that best explains the running
        statistics; None if there are none, or the estimator does not keep the initial ones.
      unexplained: the gap to the batches that is then left, relative to what is far.
      running_mean: the running mean as found; None without running statistics.
      running_var: the running variance as found; None without running statistics.
      updates: the number of batches or samples seen, if it is counted; else None.
      pending: whether batches are pending for an update.
      dead: the share of variances that are below ε.
      constant: the share of variances that are 0.
      small_scale: whether |γ| < 0.001.
      saturated: the share of outputs beyond the activation's range; None if not named.
      one_sided: whether that activation saturates on one side only.
      nonfinite: the number of non-finite values in training, in the input and the output.
      nonfinite_eval: the same in evaluation.
      shift: (mean of the output − β)/|γ| in evaluation; 0 if all is well.
      spread: standard deviation of the output/|γ| in evaluation; 1 if all is well.
      precision: the same in training, over the correct σ_batch/√(σ² + ε); 1 if exact.
      padding: the share of positions that are padding, and not masked.
      apart: the share of the variance that lies between batches, beyond chance.
    """

    name: str
    path: str
    train: Setting
    eval: Setting
    count: float
    samples: float
    batch_mean: Values
    batch_var: Values
    distance: Values | None
    log_ratio: Values | None
    start: float | None
    unexplained: float
    running_mean: Values | None
    running_var: Values | None
    updates: int | None
    pending: bool
    dead: Values
    constant: Values
    small_scale: Values
    saturated: Values | None
    one_sided: bool
    nonfinite: tuple[int, int]
    nonfinite_eval: tuple[int, int]
    shift: Values
    spread: Values
    precision: Values
    padding: float
    apart: Values


def metrics_of(
    name: str,
    train: Sequence[Observation],
    evaluated: Sequence[Observation],
    active: Range | None,
) -> NormMetrics:
    """The figures of a norm, from its calls batch by batch.

    Args:
      name: its path, with the number of the call if there are several.
      train: its calls in training, one per batch.
      evaluated: its calls in evaluation, one per batch.
      active: the range of the activation that follows; None if it is not named.
    """
    setting = train[0].setting
    seen = [call.observed for call in train]
    seen_eval = [call.observed for call in evaluated]
    x, y = (_merged([getattr(each, field) for each in seen]) for field in ("x", "y"))
    y_eval = _merged([each.y for each in seen_eval])
    # From evaluation: in training, a second call would see the updates of the first.
    kept = {key: _array(value) for key, value in seen_eval[0].kept.items()}
    affine = {"scale": np.ones_like(x.mean), "bias": np.zeros_like(x.mean)} | kept
    scale, bias = np.abs(affine["scale"]), affine["bias"]
    # Of another scale, bias or function after it nothing is known.
    plain = setting.affine and not setting.conditional
    with np.errstate(all="ignore"):
        samples = float(sum(each.samples for each in seen))
        sigma = np.sqrt(x.var + setting.epsilon)
        expected = scale * np.sqrt(x.var) / sigma
        share = {
            field: np.mean([_array(getattr(each, field)) for each in seen], axis=0)
            for field in ("dead", "constant", "saturated", "padding")
        }
        return NormMetrics(
            name=name,
            path=train[0].path,
            train=setting,
            eval=evaluated[0].setting,
            count=float(np.median([each.number for each in seen])),
            samples=samples,
            batch_mean=x.mean,
            batch_var=x.var,
            **_against(kept, x, setting),
            pending=bool(np.any(kept.get("batches", 0))),
            dead=share["dead"],
            constant=share["constant"],
            small_scale=scale < NEAR_ZERO,
            saturated=None if active is None else share["saturated"],
            one_sided=active is not None and active.one_sided,
            nonfinite=_total(seen),
            nonfinite_eval=_total(seen_eval),
            shift=(y_eval.mean - bias) / scale,
            spread=np.sqrt(y_eval.var) / scale,
            precision=np.sqrt(y.var) / expected if plain else np.ones_like(scale),
            padding=float(share["padding"]),
            apart=_between([each.x for each in seen], x, samples),
        )


def _against(kept: dict[str, Values], x: Any, setting: Setting) -> dict[str, Any]:
    """Compares the running statistics with the moments of the batches."""
    if "mean" not in kept or "var" not in kept:
        none = ("distance", "log_ratio", "start", "running_mean", "running_var", "updates")
        return dict.fromkeys(none) | {"unexplained": 1.0}
    mean, var, epsilon = kept["mean"], kept["var"], setting.epsilon
    start, unexplained = _start(mean, var, x, epsilon) if setting.plain else (None, 1.0)
    counted = kept.get("updates", kept.get("count"))
    return {
        "distance": (mean - x.mean) / np.sqrt(x.var + epsilon),
        "log_ratio": np.log((var + epsilon) / (x.var + epsilon)),
        "start": start,
        "unexplained": unexplained,
        "running_mean": mean,
        "running_var": var,
        "updates": None if counted is None else int(counted.max()),
    }


def _start(mean: Values, var: Values, x: Any, epsilon: float) -> tuple[float | None, float]:
    """The share p of mean 0 and variance 1 that fits best, the same for all features.

    The running mean would then be (1 − p)·μ and the variance p + (1 − p)·σ². The gap that
    is left is measured like other gaps, in units of 0.5 in σ and log 2 in log σ²: the
    larger of the two for each feature, and the median over features.
    """
    # The median of so many features is close enough to the median of all.
    some = slice(None, None, -(-mean.size // MOST_FITTED))
    mean, var = mean[some], var[some]
    x = Moments(*(each[some] for each in x))
    kept = 1 - SHARES[:, None]
    expected = kept + SHARES[:, None] * x.var + epsilon
    off = np.abs(mean - SHARES[:, None] * x.mean) / np.sqrt(expected) / FAR
    ratio = np.abs(np.log((var + epsilon) / expected)) / LOG_FAR
    left = np.median(np.maximum(off, ratio), axis=1)
    if not np.isfinite(left).all():
        return None, 1.0
    best = int(np.argmin(left))
    return float(1 - SHARES[best]), float(left[best])


# Compiled, since there are three merges per norm, and most are of the same shape.
_merge = jax.jit(merge)


def _merged(parts: list[Moments]) -> Any:
    """The Moments of all batches, in float64."""
    return Moments._make(map(_array, _merge(*parts)))


def _between(parts: list[Moments], whole: Any, samples: float) -> Values:
    """The share of the variance that lies between batches, beyond that of random ones."""
    counts, _, variances = (np.stack([_array(each[i]) for each in parts]) for i in range(3))
    within = np.sum(counts * variances, axis=0) / np.maximum(whole.count, 1)
    between = 1 - within / np.where(whole.var > 0, whole.var, np.inf)
    chance = (len(parts) - 1) / max(samples, len(parts))
    found = (between - chance) / max(1 - chance, 1 / len(parts))
    return np.where(whole.var > 0, np.maximum(found, 0), 0)


def _total(observed: list[Observed]) -> tuple[int, int]:
    into, out_of = np.sum([_array(each.nonfinite) for each in observed], axis=0)
    return int(into), int(out_of)


def _array(value: Any) -> Values:
    return np.asarray(value, np.float64)
