"""Batch normalisation as a Linen module."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.typing import Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import canonical_axes, take
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.normalization import Rounding
from jaxnorm._core.train_flags import resolve_train, resolve_update
from jaxnorm._core.weights import one_weighting
from jaxnorm.linen.parameters import mapped_axes, parameter
from jaxnorm.linen.state import check_state, keep_state
from jaxnorm.norms.batch import batch_norm
from jaxnorm.statistics.averages import ema
from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.state_names import named
from jaxnorm.statistics.wrappers import while_calibrating


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics, in place of `flax.linen.BatchNorm`.

    Takes the arguments of its namesake with their defaults, and keeps the same
    variables: `params/{scale,bias}` and `batch_stats/{mean,var}`, all of the shape of
    the feature axes. Checkpoints go both ways. See `jaxnorm.batch_norm` for the
    equation, the errors about shapes and dtypes, and the source.

    Initialising makes the variables and updates nothing. Training updates `batch_stats`,
    which must be mutable; evaluating only reads them, and they must be there.

    Attributes:
      use_running_average: the opposite of `train`, as in flax.
      axis: the feature axis or axes; all others are reduced.
      momentum: the weight of the old value in the running statistics, as in flax; in
        torch it is 1 − momentum.
      epsilon: added to the variance, ≥ 0.
      dtype: the dtype of the output; None is that of the input and parameters together.
      param_dtype: the dtype of scale and bias.
      use_bias: whether there is a bias β.
      use_scale: whether there is a scale γ.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      axis_name: mapped axes whose batches are normalised as one. Not used while
        initialising.
      axis_index_groups: groups of indices along axis_name that are one batch each.
      use_fast_variance: accepted and without effect. The variance is always that of
        x − μ; flax's fast E[x²] − μ² cancels.
      force_float32_reductions: False keeps the running statistics in param_dtype.
        Reductions are in at least float32 either way.
      rounding: where the output is rounded to its dtype; see `jaxnorm.normalize`.
      train: whether to normalise with the batch and update the statistics. Here or in
        the call; where several flags are given they must agree.
      update: whether to update the statistics, where that is not as `train` says; here or
        in the call.
      estimator: how the running statistics follow the batches', in place of
        `jaxnorm.ema(momentum)`. What it keeps besides mean and var is in `batch_stats` too,
        under the names of its state's fields.
      ghost_size: in training, normalises each group of so many samples by itself.

    >>> model = BatchNorm(momentum=0.9)
    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> variables = model.init(jax.random.key(0), x, train=False)
    >>> y, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> updates["batch_stats"]["mean"]
    Array([0.2, 2. ], dtype=float32)
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | tuple[str, ...] | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    rounding: Rounding = "once"
    train: bool | None = None
    update: bool | None = None
    estimator: Estimator[Any] | None = None
    ghost_size: int | None = None

    @nn.compact
    def __call__(
        self,
        x: ArrayLike,
        use_running_average: bool | None = None,
        *,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        train: bool | None = None,
        update: bool | None = None,
    ) -> Float[Array, "..."]:
        """Normalises x, and in training updates the running statistics.

        Args:
          x: floating array of any rank.
          use_running_average: the opposite of `train`, as in flax.
          mask: booleans that broadcast against x; what is False counts in no statistic.
          weights: in place of a mask, a boolean mask or non-negative weights that
            broadcast against x: one of 2 counts as if the value were there twice.
          train: whether to normalise with the batch and update the statistics.
          update: whether to update them, where that is not as `train` says.

        Raises:
          TypeError: x is not real floating, or a flag is no bool.
          ValueError: it is not said whether to train, or said twice in contradiction;
            statistics are missing in evaluation, or immutable where they are updated, or
            not those of the estimator; a mask and weights are both given.
        """
        train = resolve_train(
            **{
                "train (constructor)": self.train,
                "train (call)": train,
                "use_running_average (constructor)": self.use_running_average,
                "use_running_average (call)": use_running_average,
            }
        )
        update = resolve_update(
            train, **{"update (constructor)": self.update, "update (call)": update}
        )
        initializing = self.is_initializing()
        x = as_floating(x)
        features = take(x.shape, canonical_axes(self.axis, x.ndim))
        estimator = while_calibrating(
            ema(self.momentum) if self.estimator is None else self.estimator,
            self.variables.get("batch_stats", {}),
        )
        check_state(self, train, update)
        kept_in = jnp.float32 if self.force_float32_reductions else self.param_dtype
        kept, state = keep_state(self, estimator, features, kept_in, update)
        scale = parameter(self, "scale", features)
        bias = parameter(self, "bias", features)

        y, statistics = self.normalize(
            x,
            state,
            scale,
            bias,
            # A lone example, initialised before it is mapped, has no batch as yet.
            train=train and not (initializing and x.ndim == len(features)),
            update=update and not initializing,
            feature_axes=self.axis,
            epsilon=self.epsilon,
            estimator=estimator,
            weights=one_weighting(mask, weights),
            dtype=canonicalize_dtype(x, scale, bias, dtype=self.dtype),
            rounding=self.rounding,
            **mapped_axes(self),
        )
        if update and not initializing:
            for name, value in named(statistics).items():
                kept[name].value = value
        return y

    def normalize(self, *arguments: Any, **options: Any) -> tuple[Array, Any]:
        """The norm that this module holds the parameters and the state of."""
        return batch_norm(*arguments, ghost_size=self.ghost_size, **options)
