"""Instance normalisation as an NNX module."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Axes, Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.operands import Rounding
from jaxnorm.model.spec import NormSpec, instance_spec
from jaxnorm.nnx.parameters import operands, options, parameter
from jaxnorm.norms.instance import instance_norm


class InstanceNorm(nnx.Module):
    """Instance normalisation, a drop-in replacement for `flax.nnx.InstanceNorm`.

    Has the same arguments, defaults and `nnx.Param`s, scale and bias of shape
    (num_features,), so that checkpoints are interchangeable. See
    `jaxnorm.instance_norm` for the equation, the errors about shapes and dtypes, and the
    source.

    Args:
      num_features: number of features, the product of the sizes of the feature axes.
      epsilon: added to the variance, ≥ 0.
      dtype: output dtype; defaults to the result type of the input and the parameters.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias β.
      use_scale: whether to multiply by a scale γ.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      feature_axes: the axes over which scale and bias vary, not including the first, which
        is the batch; all others are reduced.
      axis_name: mapped axes across which samples are split.
      axis_index_groups: groups of indices along axis_name; each group holds one sample.
      use_fast_variance: accepted, but has no effect. The variance is always computed from
        x − μ; flax's E[x²] − μ² suffers from cancellation.
      promote_dtype: as in flax, `promote_dtype((x, scale, bias), dtype=dtype)`.
      rounding: when the output is rounded to `dtype`; see `jaxnorm.normalize`.
      rngs: random keys for the initialisers.
      bias_metadata: metadata of the bias's `nnx.Param`.
      scale_metadata: metadata of the scale's `nnx.Param`.

    >>> model = InstanceNorm(num_features=2, rngs=nnx.Rngs(0))
    >>> model(jnp.array([[[1.0, 30.0], [3.0, 10.0]]])).round(3)  # two positions
    Array([[[-1.,  1.],
            [ 1., -1.]]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = nnx.initializers.zeros_init(),
        scale_init: Initializer = nnx.initializers.ones_init(),
        feature_axes: Axes = -1,
        axis_name: str | tuple[str, ...] | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., Any] = promote_dtype,
        rounding: Rounding = "once",
        rngs: nnx.Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.scale = parameter(
            use_scale, scale_init, num_features, param_dtype, rngs, scale_metadata
        )
        self.bias = parameter(
            use_bias, bias_init, num_features, param_dtype, rngs, bias_metadata
        )
        self.num_features = num_features
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.feature_axes = feature_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        self.rounding: Rounding = rounding

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
          ValueError: x does not have num_features features; an axis is out of range or
            repeated; the first axis is a feature axis; a mask, weights, scale or bias
            do not fit x; both a mask and weights are given.
        """
        x, scale, bias, dtype = operands(self, x, self.feature_axes, scale, bias)
        return self._normalize(
            x,
            scale,
            bias,
            feature_axes=self.feature_axes,
            dtype=dtype,
            **options(self, mask, weights),
        )

    def _normalize(self, x: Array, scale: Any, bias: Any, **others: Any) -> Array:
        """Applies the norm; classes that inherit from this one apply another."""
        return instance_norm(x, scale, bias, **others)

    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return instance_spec(self, x)
