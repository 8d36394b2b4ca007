"""Filter response normalisation as a Linen module."""

from typing import Any

import flax.linen as nn
from flax.typing import Initializer
from jaxtyping import Array

from jaxnorm._core.axes import canonical_axes, sizes_of
from jaxnorm.linen.instance import InstanceNorm
from jaxnorm.model.spec import NormSpec, instance_spec
from jaxnorm.norms.filter_response import filter_response_norm, initial_epsilon


class FilterResponseNorm(InstanceNorm):
    """Filter response normalisation with the thresholded linear unit (FRN and TLU).

    See `jaxnorm.filter_response_norm` for the equation, the errors about shapes and dtypes,
    and the source.

    Attributes: those of `InstanceNorm`, and:
      use_threshold: whether to clip the output from below by a learned threshold τ, which
        has the shape of the feature axes.
      threshold_init: initialiser of the threshold.
      use_learned_epsilon: whether to add a learned number to ε, as the paper does where
        there are few positions or just one.
      learned_epsilon_init: initialiser of that number.

    >>> model = FilterResponseNorm()
    >>> x = jnp.array([[[3.0], [-3.0]]])
    >>> model.apply(model.init(jax.random.key(0), x), x).round(3)
    Array([[[1.],
            [0.]]], dtype=float32)
    """

    use_threshold: bool = True
    threshold_init: Initializer = nn.initializers.zeros
    use_learned_epsilon: bool = False
    learned_epsilon_init: Initializer = initial_epsilon

    @nn.nowrap
    def _normalize(self, x: Array, scale: Any, bias: Any, **others: Any) -> Array:
        features = sizes_of(x.shape, canonical_axes(self.feature_axes, x.ndim))
        shapes = {"threshold": features, "learned_epsilon": ()}
        learned = {
            name: self.param(name, getattr(self, f"{name}_init"), shape, self.param_dtype)
            for name, shape in shapes.items()
            if getattr(self, f"use_{name}")
        }
        return filter_response_norm(x, scale, bias, **learned, **others)

    @nn.nowrap
    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return instance_spec(self, x, centred=False, affine=False)
