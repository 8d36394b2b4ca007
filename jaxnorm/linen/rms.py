"""Root mean square normalisation as a Linen module."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.typing import Axes, Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import canonical_axes, take
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.kernels.choosing import Implementation
from jaxnorm._core.normalization import Rounding
from jaxnorm._core.weights import one_weighting
from jaxnorm.linen.parameters import mapped_axes, parameter
from jaxnorm.norms.rms import rms_norm


class RMSNorm(nn.Module):
    """Root mean square normalisation, in place of `flax.linen.RMSNorm`.

    Takes the arguments of its namesake with their defaults, and keeps the same
    variables, a `params/scale`, of the shape of the feature axes.
    Checkpoints go both ways. See `jaxnorm.rms_norm` for the equation, the errors about
    shapes and dtypes, and the source.

    Attributes:
      epsilon: added to the mean square, ≥ 0.
      dtype: the dtype of the output; None is that of the input and parameters together.
      param_dtype: the dtype of the scale.
      use_scale: whether there is a scale γ.
      scale_init: initialiser of the scale.
      reduction_axes: the axes over which the mean square is taken.
      feature_axes: the axes over which the scale varies.
      axis_name: mapped axes along which samples are split. Not used while initialising.
      axis_index_groups: groups of indices along axis_name that are one sample each.
      use_fast_variance: accepted and without effect. There is one way
        to the mean square.
      force_float32_reductions: accepted and without effect: they always are, at least.
      rounding: where the output is rounded to its dtype; see `jaxnorm.normalize`.
      implementation: "xla" or "kernel"; None chooses. See `jaxnorm.rms_norm`.

    >>> model = RMSNorm()
    >>> x = jnp.array([[3.0, -3.0], [5.0, 5.0]])
    >>> model.apply(model.init(jax.random.key(0), x), x).round(3)
    Array([[ 1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    epsilon: float = 1e-6
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = nn.initializers.ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | tuple[str, ...] | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    rounding: Rounding = "once"
    implementation: Implementation | None = None

    @nn.compact
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
          ValueError: an axis is out of range or repeated; a mask or weights do not fit x,
            or both are given.
        """
        x = as_floating(x)
        features = take(x.shape, canonical_axes(self.feature_axes, x.ndim))
        scale = parameter(self, "scale", features)
        return rms_norm(
            x,
            scale,
            feature_axes=self.feature_axes,
            reduction_axes=self.reduction_axes,
            epsilon=self.epsilon,
            weights=one_weighting(mask, weights),
            dtype=canonicalize_dtype(x, scale, dtype=self.dtype),
            rounding=self.rounding,
            implementation=self.implementation,
            **mapped_axes(self),
        )
