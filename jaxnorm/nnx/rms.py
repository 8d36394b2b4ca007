"""Root mean square normalisation as an NNX module."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Axes, Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.kernels.choosing import Implementation
from jaxnorm._core.operands import Rounding
from jaxnorm.model.spec import NormSpec, layer_spec
from jaxnorm.nnx.parameters import operands, options, parameter
from jaxnorm.norms.rms import rms_norm


class RMSNorm(nnx.Module):
    """Root mean square normalisation, a drop-in replacement for `flax.nnx.RMSNorm`.

    Has the same arguments, defaults and `nnx.Param`, a scale of shape (num_features,), so
    that checkpoints are interchangeable. See
    `jaxnorm.rms_norm` for the equation, the errors about shapes and dtypes, and the
    source.

    Args:
      num_features: number of features, the product of the sizes of the feature axes.
      epsilon: added to the mean square, ≥ 0.
      dtype: output dtype; defaults to the result type of the input and the parameters.
      param_dtype: the dtype of the scale.
      use_scale: whether to multiply by a scale γ.
      scale_init: initialiser of the scale.
      reduction_axes: the axes over which the mean square is taken.
      feature_axes: the axes over which the scale varies.
      axis_name: mapped axes across which samples are split.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      use_fast_variance: accepted, but has no effect. There is one way to the
        mean square.
      promote_dtype: as in flax, `promote_dtype((x, scale), dtype=dtype)`.
      rounding: when the output is rounded to `dtype`; see `jaxnorm.normalize`.
      implementation: "xla" or "kernel"; by default, jaxnorm chooses. See
        `jaxnorm.rms_norm`.
      rngs: random keys for the initialisers.
      scale_metadata: metadata of the scale's `nnx.Param`.

    >>> model = RMSNorm(num_features=2, rngs=nnx.Rngs(0))
    >>> model(jnp.array([[3.0, -3.0], [5.0, 5.0]])).round(3)
    Array([[ 1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_scale: bool = True,
        scale_init: Initializer = nnx.initializers.ones,
        reduction_axes: Axes = -1,
        feature_axes: Axes = -1,
        axis_name: str | tuple[str, ...] | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., Any] = promote_dtype,
        rounding: Rounding = "once",
        implementation: Implementation | None = None,
        rngs: nnx.Rngs,
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.scale = parameter(
            use_scale, scale_init, num_features, param_dtype, rngs, scale_metadata
        )
        self.num_features = num_features
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_scale = use_scale
        self.reduction_axes = reduction_axes
        self.feature_axes = feature_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        self.rounding: Rounding = rounding
        self.implementation: Implementation | None = implementation

    def __call__(
        self,
        x: ArrayLike,
        mask: ArrayLike | None = None,
        *,
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
          ValueError: x does not have num_features features; an axis is out of range or
            repeated; a mask, weights, scale or bias do not fit x; both a mask and weights
            are given.
        """
        x, scale, bias, dtype = operands(self, x, self.feature_axes, scale, bias)
        return rms_norm(
            x,
            scale,
            bias,
            feature_axes=self.feature_axes,
            reduction_axes=self.reduction_axes,
            dtype=dtype,
            **options(self, mask, weights),
            implementation=self.implementation,
        )

    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return layer_spec(self, x, centred=False)
