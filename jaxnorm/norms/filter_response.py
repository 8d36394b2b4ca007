"""Filter response normalisation (Singh & Krishnan 2019)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples, spatial_axes
from jaxnorm._core.dtypes import as_operand
from jaxnorm._core.measurement import Samples
from jaxnorm._core.moments import Moments
from jaxnorm._core.operands import Rounding, check_affine, check_operands, wide_along
from jaxnorm.norms._own_moments import Correction, normalize_and_measure, plan

Given = tuple[Array | None, Array | None]  # the threshold and the learned part of ε


def filter_response_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    threshold: ArrayLike | None = None,
    learned_epsilon: ArrayLike | None = None,
    feature_axes: Axis = -1,
    reduction_axes: Axis | None = None,
    epsilon: float = 1e-6,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Divides each feature by its root mean square in the sample, and clips from below.

        y = max(γ·x/√(ν² + ε + |εₗ|) + β, τ),  ν² = Σw·x²/Σw over the spatial axes

    The maximum is the thresholded linear unit (TLU), which takes the place of an activation
    function. The mean is not subtracted.

    Args:
      x: floating array of any rank.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      threshold: τ, a scalar or an array with the same choice of shapes as scale; defaults
        to −∞, which clips nothing.
      learned_epsilon: εₗ, a scalar or an array with the shape of the feature axes; defaults
        to 0. Use it if there are few positions or just one, where ν² may be near 0.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      reduction_axes: the spatial axes, over which the mean square is taken; defaults to all
        axes except the first, which is the batch, and the feature axes.
      epsilon: ε ≥ 0, added to the mean square.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the mean square; see `normalize` for their output, to
        which the threshold is applied.
      axis_name: mapped axes (of vmap, pmap, shard_map) over which each sample is split.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      dtype: output dtype; defaults to `x.dtype`.
      rounding: when to round to the output dtype; see `normalize`.

    Returns:
      y, with the shape of x.

    Raises:
      TypeError: x does not have a real floating dtype.
      ValueError: an axis is out of range, repeated, or named as both a feature and a
        reduction axis; scale, bias, threshold, learned_epsilon or weights do not fit x;
        epsilon is negative.

    Source: Singh & Krishnan 2019, "Filter Response Normalization Layer" (arXiv:1911.09737),
    equations 1 to 3, and section 3.3 for the learned ε.

    >>> x = jnp.array([[[3.0], [-3.0]]])  # one sample, two positions
    >>> filter_response_norm(x, threshold=0.0, epsilon=0.0)
    Array([[[1.],
            [0.]]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = spatial_axes(x.shape, features, reduction_axes)
    check_samples(x.shape, reduced, single=True)  # the learned ε is meant for it
    weights = check_operands(x, features, scale, bias, epsilon, weights)
    threshold = _wide("threshold", threshold, features, x)
    learned = _wide("learned_epsilon", learned_epsilon, features, x)

    how = plan(
        Samples(reduced, about_zero=True),
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    correct = None if learned is None else _by_learned_epsilon
    finish = None if threshold is None else _above_threshold
    given = threshold, None if learned is None else _of_moments(learned, reduced, x)
    y, _ = normalize_and_measure(x, scale, bias, weights, how, correct, finish, given)
    return y


def initial_epsilon(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """Initialises the learned part of ε to 1e-4, as the paper does in section 3.3.

    >>> initial_epsilon(jax.random.key(0), ())
    Array(0.0001, dtype=float32)
    """
    del key
    return jnp.full(shape, 1e-4, dtype)


def _wide(
    name: str, array: ArrayLike | None, features: tuple[int, ...], x: Array
) -> Array | None:
    """A scalar, or an array that fits x as a scale, in the rank of x; None is None."""
    if array is None:
        return None
    if jnp.ndim(array) == 0:
        return wide_along(jnp.reshape(array, (1,) * x.ndim), tuple(range(x.ndim)), x)
    check_affine(x.shape, features, **{name: array})
    return wide_along(array, features, x)


def _of_moments(learned: Array, reduced: tuple[int, ...], x: Array) -> Array:
    """The learned ε in the shape of the moments; raises if it varies within a sample."""
    if any(learned.shape[i] != 1 for i in reduced):
        raise ValueError(
            f"learned_epsilon has shape {learned.shape}, but it is added to moments over "
            f"the axes {reduced} of x, of shape {x.shape}; give it size 1 along these "
            "axes, the shape of the features, or a scalar."
        )
    return jnp.squeeze(learned, reduced)


def _by_learned_epsilon(moments: Moments, epsilon: float, given: Given) -> Correction:
    """Adds |εₗ| to the mean square, as ε is added later."""
    _, learned = given
    assert learned is not None
    return Correction(variance=moments.var + jnp.abs(learned))


def _above_threshold(y: Array, given: Given) -> Array:
    threshold, _ = given
    assert threshold is not None
    return jnp.maximum(y, threshold.astype(y.dtype))
