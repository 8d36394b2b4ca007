"""Filter response normalisation as an NNX module."""

from typing import Any

from flax import nnx
from flax.typing import Initializer
from jaxtyping import Array

from jaxnorm.model.spec import NormSpec, instance_spec
from jaxnorm.nnx.instance import InstanceNorm
from jaxnorm.nnx.parameters import features_of, shaped
from jaxnorm.norms.filter_response import filter_response_norm, initial_epsilon


class FilterResponseNorm(InstanceNorm):
    """Filter response normalisation with the thresholded linear unit (FRN and TLU).

    See `jaxnorm.filter_response_norm` for the equation, the errors about shapes and dtypes,
    and the source.

    Args:
      num_features: number of features, the product of the sizes of the feature axes.
      use_threshold: whether to clip the output from below by a learned threshold τ of shape
        (num_features,).
      threshold_init: initialiser of the threshold.
      use_learned_epsilon: whether to add a learned number to ε, as the paper does where
        there are few positions or just one.
      learned_epsilon_init: initialiser of that number.
      rngs: random keys for the initialisers.
      **options: arguments of `InstanceNorm`.

    >>> model = FilterResponseNorm(num_features=1, rngs=nnx.Rngs(0))
    >>> model(jnp.array([[[3.0], [-3.0]]])).round(3)
    Array([[[1.],
            [0.]]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_threshold: bool = True,
        threshold_init: Initializer = nnx.initializers.zeros_init(),
        use_learned_epsilon: bool = False,
        learned_epsilon_init: Initializer = initial_epsilon,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        super().__init__(num_features, rngs=rngs, **options)
        dtype = self.param_dtype
        self.threshold = self.learned_epsilon = nnx.data(None)
        if use_threshold:
            value = threshold_init(rngs.params(), (num_features,), dtype)
            self.threshold = nnx.Param(value)
        if use_learned_epsilon:
            self.learned_epsilon = nnx.Param(learned_epsilon_init(rngs.params(), (), dtype))

    def _normalize(self, x: Array, scale: Any, bias: Any, **others: Any) -> Array:
        features = features_of(self, x, self.feature_axes)
        learned = {
            name: shaped(variable[...], features)
            for name in ("threshold", "learned_epsilon")
            if (variable := getattr(self, name)) is not None
        }
        return filter_response_norm(x, scale, bias, **learned, **others)

    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return instance_spec(self, x, centred=False, affine=False)
