"""Batch normalisation as an NNX module."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Axes, Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.normalization import Rounding
from jaxnorm._core.train_flags import resolve_train, resolve_update
from jaxnorm._core.weights import one_weighting
from jaxnorm.nnx.parameters import features_of, parameter, promote, shaped
from jaxnorm.norms.batch import batch_norm
from jaxnorm.statistics.averages import ema
from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.state_names import named, state_like, unnamed
from jaxnorm.statistics.wrappers import while_calibrating


class BatchNorm(nnx.Module):
    """Batch normalisation with running statistics, in place of `flax.nnx.BatchNorm`.

    Takes the arguments of its namesake with their defaults, and keeps the same variables:
    `nnx.Param`s scale and bias, `nnx.BatchStat`s mean and var, of shape (num_features,).
    Checkpoints go both ways. See `jaxnorm.batch_norm` for the equation, the errors about
    shapes and dtypes, and the source.

    `model.train()` and `model.eval()` say whether to normalise with the batch and update
    the statistics, or with these, which are float32 whatever `dtype` says.

    Args:
      num_features: how many features x has, on all feature axes together.
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
      axis_name: mapped axes whose batches are normalised as one.
      axis_index_groups: groups of indices along axis_name that are one batch each.
      use_fast_variance: accepted and without effect. The variance is always that
        of x − μ; flax's fast E[x²] − μ² cancels.
      promote_dtype: as in flax, `promote_dtype((x, mean, var, scale, bias), dtype=dtype)`,
        of which mean and var are not used: coarse ones would be off.
      train: where given, in place of use_running_average, its opposite. It is kept as
        that attribute, for `train` is the method.
      rounding: where the output is rounded to its dtype; see `jaxnorm.normalize`.
      update: whether to update the statistics, where that is not as `train` says.
      estimator: how the running statistics follow the batches', in place of
        `jaxnorm.ema(momentum)`. What it keeps besides mean and var is an `nnx.BatchStat`
        too, under the names of its state's fields.
      ghost_size: in training, normalises each group of so many samples by itself.
      rngs: the random keys for the initialisers.
      bias_metadata: of the bias's `nnx.Param`.
      scale_metadata: of the scale's `nnx.Param`.

    >>> model = BatchNorm(num_features=2, momentum=0.9, rngs=nnx.Rngs(0))
    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> model(x).round(3)
    Array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> model.mean[...]
    Array([0.2, 2. ], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: Axes = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = nnx.initializers.zeros_init(),
        scale_init: Initializer = nnx.initializers.ones_init(),
        axis_name: str | tuple[str, ...] | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., Any] = promote_dtype,
        train: bool | None = None,
        rounding: Rounding = "once",
        update: bool | None = None,
        estimator: Estimator[Any] | None = None,
        ghost_size: int | None = None,
        rngs: nnx.Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.estimator = estimator
        self.momentum = momentum
        self.mean: nnx.BatchStat[Any]
        self.var: nnx.BatchStat[Any]
        follower = self._follower()
        state_like(follower, (num_features,), jnp.float32)
        for name, value in named(follower.init((num_features,))).items():
            setattr(self, name, nnx.BatchStat(value))
        self.scale = parameter(
            use_scale, scale_init, num_features, param_dtype, rngs, scale_metadata
        )
        self.bias = parameter(
            use_bias, bias_init, num_features, param_dtype, rngs, bias_metadata
        )
        self.num_features = num_features
        self.use_running_average = use_running_average
        self.axis = axis
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        self.rounding: Rounding = rounding
        self.update = update
        self.ghost_size = ghost_size
        # False, its default, cannot be told from nothing said.
        self.set_view(use_running_average or None, train)

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
          train: whether to normalise with the batch and update the statistics; here, it
            goes before what the module was set to.
          update: whether to update them, where that is not as `train` says; likewise.

        Raises:
          TypeError: x is not real floating, or a flag is no bool.
          ValueError: x has not num_features features; an axis is out of range or repeated;
            a mask or weights do not fit x, or both are given; it is not said whether to
            train, or said twice in contradiction.
        """
        if use_running_average is None and train is None:
            use_running_average = self.use_running_average
        train = resolve_train(train=train, use_running_average=use_running_average)
        update = resolve_update(train, update=self.update if update is None else update)
        x, dtype, _, _, scale, bias = promote(
            self, x, self.mean, self.var, self.scale, self.bias
        )
        features = features_of(self, x, self.axis)
        estimator = while_calibrating(self._follower(), vars(self))
        like = state_like(estimator, features, jnp.float32)
        kept = {name: getattr(self, name) for name in named(like)}
        y, statistics = self.normalize(
            x,
            unnamed(
                {name: shaped(each[...], features) for name, each in kept.items()}, like
            ),
            shaped(scale, features),
            shaped(bias, features),
            train=train,
            update=update,
            feature_axes=self.axis,
            epsilon=self.epsilon,
            estimator=estimator,
            weights=one_weighting(mask, weights),
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            dtype=dtype,
            rounding=self.rounding,
        )
        if update:
            for name, value in named(statistics).items():
                # As in flax: a variable that is a reference cannot hold a tangent.
                kept[name][...] = jax.lax.stop_gradient(value.reshape(kept[name].shape))
        return y

    def _follower(self) -> Estimator[Any]:
        """What follows the batches."""
        return ema(self.momentum) if self.estimator is None else self.estimator

    def normalize(self, *arguments: Any, **options: Any) -> tuple[Array, Any]:
        """The norm that this module holds the parameters and the state of."""
        return batch_norm(*arguments, ghost_size=self.ghost_size, **options)

    def set_view(
        self, use_running_average: bool | None = None, train: bool | None = None
    ) -> None:
        """Sets the mode, as `nnx.view` does.

        Args:
          use_running_average: the opposite of `train`, as in flax.
          train: whether to normalise with the batch and update the statistics.
        """
        if use_running_average is not None or train is not None:
            self.use_running_average = not resolve_train(
                train=train, use_running_average=use_running_average
            )
