"""Root mean square normalisation (Zhang & Sennrich 2019)."""

from collections.abc import Sequence

from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_operand
from jaxnorm._core.kernels.choosing import Implementation
from jaxnorm._core.measurement import Samples
from jaxnorm._core.normalization import Rounding, check_operands
from jaxnorm.norms._own_moments import normalize_by_own, plan


@renamed_arguments(axis="feature_axes", reduced="reduction_axes")
def rms_norm(
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
    implementation: Implementation | None = None,
) -> Float[Array, "..."]:
    """Divides each sample by the root mean square of its features.

        y = γ·x/√(Σw·x²/Σw + ε) + β

    Layer normalisation without a mean to subtract, and, as usual, without β.

    Args:
      x: floating array of any rank.
      scale: γ, of the shape of the axes `feature_axes` of x; None is 1.
      bias: β, likewise; None is 0.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      reduction_axes: the axes over which the moments are taken; None is
        `feature_axes`. With feature_axes=-1,
        (1, 2, 3) is each image of (N, H, W, C) as a whole.
      epsilon: ε ≥ 0, added to the variance.
      weights: boolean mask or non-negative weights that broadcast against x. What has
        weight 0 counts in no moment; see `normalize` for its output.
      axis_name: mapped axes (of vmap, pmap, shard_map) along which samples are split.
      axis_index_groups: groups of indices along axis_name that are one sample each.
      dtype: the dtype of y; None is that of x.
      rounding: where y is rounded to its dtype; see `normalize`.
      implementation: "xla", or "kernel" for a Pallas kernel in the backward pass where one
        fits, which is silently "xla" elsewhere: on a TPU, or a GPU from Hopper on; for
        float32 or bfloat16, x and y; for the last axes, of 256·k ≤ 8192 features and 16·k
        rows; without weights; on one device, as within `jax.shard_map` with
        check_vma=False. None chooses, which today is "xla" always.

    Returns:
      y, in the shape of x.

    Raises:
      TypeError: x is not real floating.
      ValueError: an axis is out of range or repeated; scale, bias or weights do not fit
        x; epsilon is negative; there is nothing to take moments of; rounding or
        implementation is none that there is.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization"
    (arXiv:1910.07467), equation 4.

    Gemma stores γ − 1: give it `1 + scale`, added in float32. Llama rounds twice.

    >>> rms_norm(jnp.array([[1.0, 7.0], [-5.0, 5.0]]), epsilon=0.0)
    Array([[ 0.2,  1.4],
           [-1. ,  1. ]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = features if reduction_axes is None else canonical_axes(reduction_axes, x.ndim)
    check_samples(x.shape, reduced, mapped=axis_name is not None)
    weights = check_operands(x, features, scale, bias, epsilon, weights)

    how = plan(
        Samples(reduced, about_zero=True),
        features,
        epsilon=epsilon,
        dtype=dtype,
        rounding=rounding,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        implementation=implementation,
    )
    return normalize_by_own(x, scale, bias, weights, how)
