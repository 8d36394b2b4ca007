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

from jaxnorm._core.normalization import Rounding
from jaxnorm._core.weights import one_weighting
from jaxnorm.nnx.parameters import features_of, parameter, promote, shaped
from jaxnorm.norms.instance import instance_norm


class InstanceNorm(nnx.Module):
    """Instance normalisation, in place of `flax.nnx.InstanceNorm`.

    Takes the arguments of its namesake with their defaults, and keeps the same
    `nnx.Param`s, scale and bias, of shape (num_features,). Checkpoints go both ways. See
    `jaxnorm.instance_norm` for the equation, the errors about shapes and dtypes, and the
    source.

    Args:
      num_features: how many features x has, on all feature axes together.
      epsilon: added to the variance, ≥ 0.
      dtype: the dtype of the output; None is that of the input and parameters together.
      param_dtype: the dtype of scale and bias.
      use_bias: whether there is a bias β.
      use_scale: whether there is a scale γ.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      feature_axes: the axes over which scale and bias vary, the first, which is the
        batch, not among them; all others are reduced.
      axis_name: mapped axes along which samples are split.
      axis_index_groups: groups of indices along axis_name that are one sample each.
      use_fast_variance: accepted and without effect. The variance is always that
        of x − μ; flax's fast E[x²] − μ² cancels.
      promote_dtype: as in flax, `promote_dtype((x, scale, bias), dtype=dtype)`.
      rounding: where the output is rounded to its dtype; see `jaxnorm.normalize`.
      rngs: the random keys for the initialisers.
      bias_metadata: of the bias's `nnx.Param`.
      scale_metadata: of the scale's `nnx.Param`.

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
    ) -> Float[Array, "..."]:
        """Normalises x.

        Args:
          x: floating array of any rank.
          mask: booleans that broadcast against x; what is False counts in no moment.
          weights: in place of a mask, a boolean mask or non-negative weights that
            broadcast against x: one of 2 counts as if the value were there twice.

        Raises:
          TypeError: x is not real floating.
          ValueError: x has not num_features features; an axis is out of range or repeated;
            the first is of features; there are no positions to take moments over; a mask or
            weights do not fit x, or both are given.
        """
        x, dtype, scale, bias = promote(self, x, self.scale, self.bias)
        features = features_of(self, x, self.feature_axes)
        return instance_norm(
            x,
            shaped(scale, features),
            shaped(bias, features),
            feature_axes=self.feature_axes,
            epsilon=self.epsilon,
            weights=one_weighting(mask, weights),
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            dtype=dtype,
            rounding=self.rounding,
        )
