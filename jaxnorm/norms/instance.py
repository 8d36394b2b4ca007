"""Instance normalisation (Ulyanov, Vedaldi & Lempitsky 2016)."""

from collections.abc import Sequence

from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples, spatial_axes
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_operand
from jaxnorm._core.measurement import Samples
from jaxnorm._core.operands import Rounding, check_operands
from jaxnorm.norms._own_moments import normalize_by_own, plan


@renamed_arguments(axis="feature_axes", reduced="reduction_axes")
def instance_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    feature_axes: Axis = -1,
    reduction_axes: Axis | None = None,
    epsilon: float = 1e-6,
    weights: ArrayLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    dtype: DTypeLike | None = None,
    rounding: Rounding = "once",
) -> Float[Array, "..."]:
    """Normalises each feature of each sample by its moments over the spatial axes.

        y = γ·(x − μ)/√(σ² + ε) + β

    Args:
      x: floating array of any rank.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      reduction_axes: the spatial axes, over which the moments are taken; defaults to all
        axes except the first, which is the batch, and the feature axes.
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
      ValueError: an axis is out of range, repeated, or named as both a feature and a
        reduction axis; scale, bias or weights do not fit x; epsilon is negative.

    Warns:
      UserWarning: each feature of a sample has a single position, so that the output is β.

    Source: Ulyanov, Vedaldi & Lempitsky 2016, "Instance Normalization: The Missing
    Ingredient for Fast Stylization" (arXiv:1607.08022), equation 5.

    >>> x = jnp.array([[[1.0, 30.0], [3.0, 10.0]]])  # one sample, two positions
    >>> instance_norm(x, epsilon=0.0)
    Array([[[-1.,  1.],
            [ 1., -1.]]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = spatial_axes(x.shape, features, reduction_axes)
    check_samples(x.shape, reduced, single=axis_name is not None)
    weights = check_operands(x, features, scale, bias, epsilon, weights)

    how = plan(
        Samples(reduced),
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    return normalize_by_own(x, scale, bias, weights, how)
