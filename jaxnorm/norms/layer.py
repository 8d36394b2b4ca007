"""Layer normalisation (Ba, Kiros & Hinton 2016)."""

from collections.abc import Sequence

from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import Axis, canonical_axes, check_samples
from jaxnorm._core.deprecation import renamed_arguments
from jaxnorm._core.dtypes import as_operand
from jaxnorm._core.kernels.choosing import Implementation
from jaxnorm._core.measurement import Samples
from jaxnorm._core.operands import Rounding, check_operands
from jaxnorm.norms._own_moments import normalize_by_own, plan


@renamed_arguments(axis="feature_axes", reduced="reduction_axes")
def layer_norm(
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
    """Normalises each sample by its moments over its features.

        y = γ·(x − μ)/√(σ² + ε) + β

    The output does not depend on the batch, and there is no state.

    Args:
      x: floating array of any rank.
      scale: γ, with the shape of the feature axes, or with the rank of x and size 1 along
        axes over which it does not vary (a conditional scale, as in FiLM); defaults to 1.
      bias: β, with the same choice of shapes as scale; defaults to 0.
      feature_axes: the feature axis or axes, over which scale and bias vary.
      reduction_axes: the axes over which the moments are taken; defaults to
        `feature_axes`. With feature_axes=-1, reduction_axes=(1, 2, 3) normalises each
        image of (N, H, W, C) as a whole.
      epsilon: ε ≥ 0, added to the variance.
      weights: boolean mask or non-negative weights that broadcast against x. Elements with
        weight 0 are excluded from the statistics; see `normalize` for their output.
      axis_name: mapped axes (of vmap, pmap, shard_map) over which each sample is split.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      dtype: output dtype; defaults to `x.dtype`.
      rounding: when to round to the output dtype; see `normalize`.
      implementation: "xla", or "kernel" for a Pallas kernel in the backward pass. The
        kernel needs a TPU or a GPU (Hopper or newer); x and y in float32 or bfloat16;
        moments over the last axes, with at most 8192 features, a multiple of 256, and a
        multiple of 16 rows; no weights, axis_name, or conditional scale or bias; and one
        device, which includes the inside of `jax.shard_map` with check_vma=False. In all
        other cases "kernel" silently falls back to "xla". With None, jaxnorm chooses; at
        present always "xla".

    Returns:
      y, with the shape of x.

    Raises:
      TypeError: x does not have a real floating dtype.
      ValueError: an axis is out of range or repeated; scale, bias or weights do not fit
        x; epsilon is negative; there are no elements to take moments over; rounding or
        implementation is not one of the allowed values.

    Warns:
      UserWarning: the moments are those of a single element, so that the output is β.

    Source: Ba, Kiros & Hinton 2016, "Layer Normalization" (arXiv:1607.06450), equations
    3 and 4. The paper, too, has one gain and one bias per feature.

    >>> layer_norm(jnp.array([[1.0, 3.0], [20.0, 0.0]]), epsilon=0.0)
    Array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)
    """
    x, dtype = as_operand(x, dtype)
    features = canonical_axes(feature_axes, x.ndim)
    reduced = features if reduction_axes is None else canonical_axes(reduction_axes, x.ndim)
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
        implementation=implementation,
    )
    return normalize_by_own(x, scale, bias, weights, how)
