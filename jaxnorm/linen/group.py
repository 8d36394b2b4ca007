"""Group normalisation as a Linen module."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Axes, Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.dtypes import as_input
from jaxnorm._core.operands import Rounding
from jaxnorm.linen.parameters import affine, options
from jaxnorm.model.spec import NormSpec, group_spec
from jaxnorm.norms.group import group_norm


class GroupNorm(nn.Module):
    """Group normalisation, a drop-in replacement for `flax.linen.GroupNorm`.

    It has the same arguments, defaults and variables, `params/{scale,bias}` of the shape of
    the feature axes, so that checkpoints are interchangeable. See `jaxnorm.group_norm` for
    the equation, the errors about shapes and dtypes, and the source.

    Attributes:
      num_groups: number of groups of consecutive features.
      group_size: number of features per group; an alternative to num_groups, which must
        then be None.
      epsilon: added to the variance, ≥ 0.
      dtype: output dtype; defaults to the result type of the input and the parameters.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias β.
      use_scale: whether to multiply by a scale γ.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      reduction_axes: the axes over which the moments are taken, in addition to the
        features of a group; defaults to all axes except the first, which is the batch.
      axis_name: mapped axes across which samples are split. Ignored during initialisation.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      use_fast_variance: accepted, but has no effect. The variance is always computed from
        x − μ; flax's E[x²] − μ² suffers from cancellation.
      force_float32_reductions: accepted, but has no effect: reductions are always in at
        least float32.
      rounding: when the output is rounded to `dtype`; see `jaxnorm.normalize`.
      feature_axes: the feature axis or axes, over which scale and bias vary.

    >>> model = GroupNorm(num_groups=2)
    >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> model.apply(model.init(jax.random.key(0), x), x).round(3)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    reduction_axes: Axes | None = None
    axis_name: str | tuple[str, ...] | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    rounding: Rounding = "once"
    feature_axes: Axes = -1

    @nn.compact
    def __call__(
        self,
        x: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        bias: ArrayLike | None = None,
    ) -> Float[Array, "..."]:
        """Normalises x.

        Args:
          x: floating array of any rank.
          mask: boolean array that broadcasts against x; elements where it is False are
            excluded from the moments.
          weights: non-negative weights that broadcast against x, in place of a mask; an
            element with weight 2 counts twice.
          scale: conditional scale, applied after the module's own scale and bias. It has
            the shape of the feature axes, or the rank of x and size 1 along axes over which
            it does not vary, such as (N, 1, 1, C) for one scale per sample.
          bias: conditional bias, added last, with the same choice of shapes as scale.

        Raises:
          TypeError: x does not have a real floating dtype.
          ValueError: the features cannot be divided into the groups; an axis is out of
            range or repeated; a mask, weights, scale or bias do not fit x; both a mask and
            weights are given.
        """
        x = as_input(x)
        scale, bias, dtype = affine(self, x, self.feature_axes, scale, bias)
        return group_norm(
            x,
            scale,
            bias,
            num_groups=self.num_groups,
            group_size=self.group_size,
            feature_axes=self.feature_axes,
            reduction_axes=self.reduction_axes,
            dtype=dtype,
            **options(self, mask, weights),
        )

    @nn.nowrap
    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return group_spec(self, x)
