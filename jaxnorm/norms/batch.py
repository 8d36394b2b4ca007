"""Batch normalisation (Ioffe & Szegedy 2015)."""

from collections.abc import Sequence

from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples, complement, sizes_of
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_operand, check_count
from jaxnorm._core.measurement import Samples, measure_samples
from jaxnorm._core.moments import synchronize
from jaxnorm._core.operands import Rounding, check_operands
from jaxnorm._core.train_flags import resolve_update
from jaxnorm.norms._ghosts import normalize_ghosts
from jaxnorm.norms._own_moments import (
    normalize_and_measure,
    normalize_by_running,
    plan,
)
from jaxnorm.statistics.averages import or_reader
from jaxnorm.statistics.estimator import Estimator, State, as_statistics


@renamed_arguments(axis="feature_axes")
def batch_norm(
    x: ArrayLike,
    statistics: State,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    train: bool,
    feature_axes: Axis = -1,
    epsilon: float = 1e-5,
    estimator: Estimator[State] | None = None,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
    update: bool | None = None,
    ghost_size: int | None = None,
) -> tuple[Float[Array, "..."], State]:
    """Normalises each feature by its moments over the batch and all spatial axes.

        y = γ·(x − μ)/√(σ² + ε) + β

    In training, μ and σ² are the moments of this batch, and the running statistics are
    updated with them. In evaluation, μ and σ² are the running statistics, which do not
    change.

    Args:
      x: floating array of any rank.
      statistics: the state of the estimator; initially `estimator.init(features)`, where
        `features` is the shape of the feature axes of x.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      train: whether to normalise with this batch and update the running statistics, rather
        than normalise with the running statistics.
      feature_axes: the feature axis or axes: -1 for channels last, 1 for channels first.
        All other axes are reduced.
      epsilon: ε ≥ 0, added to the variance.
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
      update: whether to update the statistics; defaults to `train`. With train=True and
        update=False they do not change; with train=False and update=True they are updated
        with the batch, which is still normalised with the statistics passed in.
      ghost_size: number of samples per ghost batch. In training, each ghost batch is
        normalised by itself (Hoffer et al. 2017, arXiv:1705.08741); the batch is split
        along the first axis that is not a feature axis, and samples left over are spread
        over the ghost batches. The statistics are updated with the merged moments of the
        whole batch, and evaluation uses no ghost batches. On a mapped axis, no ghost batch
        is larger than the device's batch. Defaults to no ghost batches.

    Returns:
      (y, statistics): y with the shape of x; statistics with the structure of the input.

    Raises:
      TypeError: x does not have a real floating dtype; train or update is not a bool;
        statistics are not a state of the estimator, or are to be updated without one;
        ghost_size is not an integer.
      ValueError: an axis is out of range or repeated; scale, bias, statistics or weights
        do not fit the features; epsilon is negative; in training, the batch has no
        samples; ghost_size is less than 1, or there is no axis of samples to split.

    Warns:
      UserWarning: in training, each feature has a single sample, so that the output is β
        and the variance 0.

    Source: Ioffe & Szegedy 2015, "Batch Normalization" (arXiv:1502.03167), algorithms 1
    and 2. The paper's running variance is unbiased, m/(m−1)·σ², as with
    `ema(…, unbiased=True)`; the default here is σ² itself.

    >>> from jaxnorm import ema
    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> average = ema(0.5)
    >>> statistics = average.init((2,))
    >>> y, statistics = batch_norm(
    ...     x, statistics, train=True, epsilon=0.0, estimator=average
    ... )
    >>> y
    Array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> statistics.mean
    Array([ 1., 10.], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = complement(features, x.ndim)
    update = resolve_update(train, update=update)
    if ghost_size is not None:
        check_count(ghost_size=ghost_size)
    weights = check_operands(x, features, scale, bias, epsilon, weights)
    follower = or_reader(estimator, update=update)
    statistics = as_statistics(statistics, follower, sizes_of(x.shape, features))

    samples = Samples(reduced)
    how = plan(
        samples,
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    if train or update:
        single = axis_name is not None or not train
        check_samples(x.shape, reduced, single=single)
    if train and ghost_size is not None and not reduced:
        raise ValueError(
            f"ghost_size={ghost_size}, but x has shape {x.shape} and no axis of samples to "
            "split; give x one, or leave ghost_size out."
        )
    if train and ghost_size is not None:
        y, moments = normalize_ghosts(x, scale, bias, weights, how, ghost_size)
    elif train:
        y, moments = normalize_and_measure(x, scale, bias, weights, how)
    else:
        y = normalize_by_running(x, scale, bias, weights, how, follower.read(statistics))
        if not update:
            return y, statistics
        moments = measure_samples(x, weights, samples)
        moments = synchronize(moments, axis_name, axis_index_groups)
    return y, follower.update(statistics, moments) if update else statistics
