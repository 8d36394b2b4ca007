"""Instance normalisation with running statistics, which only torch has."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import canonical_axes, spatial_axes
from jaxnorm._core.measurement import measure
from jaxnorm._core.moments import Moments
from jaxnorm.norms.batch import batch_norm
from jaxnorm.norms.instance import instance_norm
from jaxnorm.statistics.averages import Statistics, ema
from jaxnorm.statistics.estimator import Estimator


def tracked_instance_norm(
    x: ArrayLike,
    statistics: Statistics,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    train: bool,
    axis: int = -1,
    epsilon: float = 1e-5,
    estimator: Estimator[Statistics] = ema(0.9, unbiased=True),
) -> tuple[Float[Array, "..."], Statistics]:
    """Torch's InstanceNorm with track_running_stats=True.

    In training, each sample is normalised by its own moments, and the running statistics
    are updated with the mean of these over the samples. In evaluation, x is normalised by
    the running statistics.

    Args:
      x: floating array of any rank; the first axis is the batch.
      statistics: the running statistics, with the shape of the features.
      scale: γ, with the shape of the features; defaults to 1.
      bias: β, with the shape of the features; defaults to 0.
      train: whether to train or to evaluate.
      axis: the feature axis.
      epsilon: ε ≥ 0, added to the variance.
      estimator: updates the running statistics; torch's momentum is 1 − decay.

    Returns:
      (y, statistics): y in the shape of x; the statistics in the structure given.

    Raises:
      TypeError: x does not have a real floating dtype.
      ValueError: as for `jaxnorm.instance_norm` and `jaxnorm.batch_norm`.

    >>> x = jnp.array([[[1.0], [3.0]], [[10.0], [30.0]]])  # two samples, two positions
    >>> statistics = ema(0.5).init((1,))
    >>> y, statistics = tracked_instance_norm(
    ...     x, statistics, train=True, epsilon=0.0, estimator=ema(0.0, unbiased=True)
    ... )
    >>> y.ravel(), statistics.var  # the mean of 2 and 200
    (Array([-1.,  1., -1.,  1.], dtype=float32), Array([101.], dtype=float32))
    """
    if not train:
        return batch_norm(
            x,
            statistics,
            scale,
            bias,
            train=False,
            feature_axes=axis,
            epsilon=epsilon,
            estimator=estimator,
        )
    y = instance_norm(x, scale, bias, feature_axes=axis, epsilon=epsilon)
    x = jnp.asarray(x)
    of_samples = measure(x, spatial_axes(x.shape, canonical_axes(axis, x.ndim), None))
    moments = Moments(*(jnp.mean(each, 0) for each in of_samples))
    return y, estimator.update(statistics, moments)
