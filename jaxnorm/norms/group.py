"""Group normalisation (Wu & He 2018)."""

import math
from collections.abc import Sequence

from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import (
    Axis,
    canonical_axes,
    check_samples,
    count_groups,
    sizes_of,
    spatial_axes_of_groups,
)
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_operand
from jaxnorm._core.groups import Groups
from jaxnorm._core.measurement import Samples
from jaxnorm._core.operands import Rounding, check_operands
from jaxnorm.norms._grouped_rows import normalize_rows
from jaxnorm.norms._own_moments import normalize_by_own, plan


@renamed_arguments(axis="feature_axes", reduced="reduction_axes")
def group_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    num_groups: int | None = 32,
    group_size: int | None = None,
    feature_axes: Axis = -1,
    reduction_axes: Axis | None = None,
    epsilon: float = 1e-6,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Normalises each sample by its moments over groups of features and the spatial axes.

        y = γ·(x − μ)/√(σ² + ε) + β

    Args:
      x: floating array of any rank.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      num_groups: number of groups of consecutive features.
      group_size: number of features per group; an alternative to num_groups, which must
        then be None.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      reduction_axes: the spatial axes, over which the moments are taken in addition to
        the features of a group; may include the feature axes. Defaults to all axes except
        the first, which is the batch.
      epsilon: ε ≥ 0, added to the variance.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the statistics; see `normalize` for their output.
      axis_name: mapped axes (of vmap, pmap, shard_map) over which each sample is split.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      dtype: output dtype; defaults to `x.dtype`.
      rounding: when to round to the output dtype; see `normalize`.

    Returns:
      y, with the shape of x.

    Raises:
      TypeError: x does not have a real floating dtype.
      ValueError: an axis is out of range or repeated; the features cannot be divided into
        the groups; scale, bias or weights do not fit x; epsilon is negative.

    Warns:
      UserWarning: each group has one feature and one position, so that the output is β.

    Source: Wu & He 2018, "Group Normalization" (arXiv:1803.08494), equations 1, 2 and 7.
    With one group this is layer normalisation of the whole sample; with as many groups as
    features, it is instance normalisation.

    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])  # one sample
    >>> group_norm(x, num_groups=2, epsilon=0.0)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = spatial_axes_of_groups(x.shape, features, reduction_axes)
    channels = sizes_of(x.shape, features)
    groups = count_groups(math.prod(channels), num_groups, group_size)
    together = reduced if groups == math.prod(channels) else (*reduced, *features)
    check_samples(x.shape, together, single=axis_name is not None)
    weights = check_operands(x, features, scale, bias, epsilon, weights)

    how = plan(
        Samples(reduced, Groups(features, groups)),
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    if math.prod(sizes_of(x.shape, reduced)) == 1:
        return normalize_rows(x, scale, bias, weights, how)
    return normalize_by_own(x, scale, bias, weights, how)
