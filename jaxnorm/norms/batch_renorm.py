"""Batch renormalisation (Ioffe 2017)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples, complement, sizes_of
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import accumulation_dtype, as_operand
from jaxnorm._core.measurement import Samples, measure_samples
from jaxnorm._core.moments import Moments, synchronize
from jaxnorm._core.operands import Rounding, check_operands
from jaxnorm._core.sharding import placed_as
from jaxnorm._core.train_flags import resolve_update
from jaxnorm.norms._own_moments import (
    Correction,
    normalize_and_measure,
    normalize_by_running,
    plan,
)
from jaxnorm.norms.renorm_limits import check_limits
from jaxnorm.statistics.averages import or_reader
from jaxnorm.statistics.estimator import Estimator, State, as_statistics


@renamed_arguments(axis="feature_axes")
def batch_renorm(
    x: ArrayLike,
    statistics: State,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    train: bool,
    r_max: ArrayLike = 3.0,
    d_max: ArrayLike = 5.0,
    feature_axes: Axis = -1,
    epsilon: float = 1e-5,
    estimator: Estimator[State] | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
    update: bool | None = None,
) -> tuple[Float[Array, "..."], State]:
    """Normalises each feature as evaluation would, with the derivative of batch norm.

        y = γ·((x − μ_B)/σ_B·r + d) + β
        r = clip(σ_B/σ, 1/r_max, r_max),  d = clip((μ_B − μ)/σ, −d_max, d_max)

    In training, μ_B and σ_B are the moments of this batch, and μ and σ the running ones
    before it. Every σ includes ε under the root, and r and d are constants in derivatives.
    Where the limits do not bind, y is the same as in evaluation, so a small or unbalanced
    batch does no harm. With r_max = 1 and d_max = 0 this is batch normalisation; training
    should start with these values, see `renorm_schedule`.

    Args:
      x: floating array of any rank.
      statistics: the state of the estimator; initially `estimator.init(features)`, where
        `features` is the shape of the feature axes of x.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      train: whether to normalise with this batch and update the running statistics, rather
        than normalise with the running statistics.
      r_max: the limit of r, ≥ 1; may be traced, such as the output of a schedule.
      d_max: the limit of |d|, ≥ 0; may be traced.
      feature_axes: the feature axis or axes: -1 for channels last, 1 for channels first.
        All other axes are reduced.
      epsilon: ε ≥ 0, added to the variances.
      estimator: how the running statistics follow the batches: the one whose `init` made
        them. Needed if they are updated, or have a count; by default, the state of a plain
        `ema` is read.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the statistics; see `normalize` for their output.
      axis_name: mapped axes (of vmap, pmap, shard_map) whose batches form one batch.
      axis_index_groups: groups of indices along axis_name; each group forms one batch.
        JAX supports them under pmap, and under shard_map with check_vma=False.
      dtype: output dtype; defaults to `x.dtype`.
      rounding: when to round to the output dtype; see `normalize`.
      update: whether to update the statistics; defaults to `train`.

    Returns:
      (y, statistics): y with the shape of x; statistics with the structure of the input.

    Raises:
      TypeError, ValueError: as for `batch_norm`; also if a limit is out of range.

    Source: Ioffe 2017, "Batch Renormalization" (arXiv:1702.03275), algorithm 1. The
    paper averages σ itself; here the estimator averages σ².

    >>> from jaxnorm import ema
    >>> x = jnp.array([[1.0], [3.0]])
    >>> average = ema(0.9)
    >>> statistics = average.init((1,))
    >>> y, _ = batch_renorm(
    ...     x, statistics, train=True, epsilon=0.0, estimator=average
    ... )
    >>> y  # same as with the running mean 0 and standard deviation 1
    Array([[1.],
           [3.]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = complement(features, x.ndim)
    update = resolve_update(train, update=update)
    check_limits(r_max, d_max)
    weights = check_operands(x, features, scale, bias, epsilon, weights)
    follower = or_reader(estimator, update=update)
    statistics = as_statistics(statistics, follower, sizes_of(x.shape, features))

    running = follower.read(statistics)
    if train or update:
        check_samples(x.shape, reduced, single=True)  # normalised as in evaluation
    how = plan(
        Samples(reduced),
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    if train:
        given = (running, r_max, d_max)
        y, batch = normalize_and_measure(
            x, scale, bias, weights, how, _correction, None, given
        )
    else:
        y = normalize_by_running(x, scale, bias, weights, how, running)
        if not update:
            return y, statistics
        batch = synchronize(
            measure_samples(x, weights, how.samples), axis_name, axis_index_groups
        )
    return y, follower.update(statistics, batch) if update else statistics


def _correction(
    batch: Moments,
    epsilon: float,
    given: tuple[Moments, ArrayLike, ArrayLike],
) -> Correction:
    """Returns r and d of each feature."""
    running, r_max, d_max = given
    wide = accumulation_dtype(batch.mean.dtype, running.mean.dtype)
    batch, running = jax.tree.map(
        lambda each: lax.stop_gradient(each.astype(wide)), (batch, running)
    )
    running = jax.tree.map(placed_as, running, batch)
    r_max, d_max = (jnp.asarray(each).astype(wide) for each in (r_max, d_max))
    deviation, expected = (jnp.sqrt(each.var + epsilon) for each in (batch, running))
    # A constant feature, or one without samples, has no standard deviation to correct.
    known = (batch.count > 0) & (expected > 0)
    ratio, shift = (
        jnp.where(known, each, 0) / jnp.where(known, expected, 1)
        for each in (deviation, batch.mean - running.mean)
    )
    r = jnp.where(known, jnp.clip(ratio, 1 / r_max, r_max), 1)
    d = jnp.clip(shift, -d_max, d_max)
    return Correction(ratio=r, shift=d)
