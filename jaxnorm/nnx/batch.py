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

from jaxnorm._core.operands import Rounding
from jaxnorm._core.train_flags import resolve_train
from jaxnorm.model.spec import NormSpec, batch_spec
from jaxnorm.nnx.modes import modes_of
from jaxnorm.nnx.parameters import (
    features_of,
    operands,
    options,
    parameter,
    shaped,
)
from jaxnorm.norms.batch import batch_norm
from jaxnorm.statistics.averages import Schedule, ema
from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.state_names import named, state_like, unnamed
from jaxnorm.statistics.wrappers import while_calibrating


class BatchNorm(nnx.Module):
    """Batch normalisation with running statistics.

    A drop-in replacement for `flax.nnx.BatchNorm`, with the same arguments and defaults.
    The variables are the same as well, so checkpoints are interchangeable: the `nnx.Param`s
    scale and bias and the `nnx.BatchStat`s mean and var, with shape (num_features,). See
    `jaxnorm.batch_norm` for the equation, the errors about shapes and dtypes, and the
    source.

    By default, and after `model.train()`, the norm normalises with the batch and updates
    the running statistics. After `model.eval()` it normalises with the running statistics,
    which are float32 whatever `dtype` is.

    Args:
      num_features: number of features, the product of the sizes of the feature axes.
      use_running_average: the opposite of `train`, as in flax.
      axis: the feature axis or axes; all others are reduced.
      momentum: weight of the old value in the running statistics, as in flax (torch's
        momentum is 1 minus this), or a schedule of it; see `jaxnorm.ema`.
      epsilon: added to the variance, ≥ 0.
      dtype: output dtype; defaults to the result type of the input and the parameters.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias β.
      use_scale: whether to multiply by a scale γ.
      bias_init: initialiser of the bias.
      scale_init: initialiser of the scale.
      axis_name: mapped axes across which the batch is split.
      axis_index_groups: groups of indices along axis_name; each group forms one batch.
      use_fast_variance: accepted, but has no effect. The variance is always computed from
        x − μ; flax's E[x²] − μ² suffers from cancellation.
      promote_dtype: as in flax, `promote_dtype((x, mean, var, scale, bias), dtype=dtype)`.
        The promoted mean and var are not used, because they may be rounded.
      train: the opposite of use_running_average. The mode is stored as
        `use_running_average`, since `train` is a method of the module.
      rounding: when the output is rounded to `dtype`; see `jaxnorm.normalize`.
      update: whether to update the statistics; defaults to `train`.
      estimator: how the running statistics follow the batches; defaults to
        `jaxnorm.ema(momentum)`. Fields of its state other than mean and var are
        `nnx.BatchStat`s under their own names.
      frozen: whether to normalise with the running statistics and never update them,
        whatever the other flags say, as when fine-tuning. `model.train()` does not
        change it; see `freeze`.
      ghost_size: number of samples per ghost batch in training; defaults to no ghosts.
      rngs: random keys for the initialisers.
      bias_metadata: metadata of the bias's `nnx.Param`.
      scale_metadata: metadata of the scale's `nnx.Param`.

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
        momentum: float | Array | Schedule = 0.99,
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
        frozen: bool = False,
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
        self.frozen = frozen
        self.ghost_size = ghost_size
        # An explicit False cannot be told from the default.
        self.set_view(use_running_average or None, train)

    def __call__(
        self,
        x: ArrayLike,
        use_running_average: bool | None = None,
        *,
        mask: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        train: bool | None = None,
        update: bool | None = None,
        frozen: bool = False,
    ) -> Float[Array, "..."]:
        """Normalises x and, in training, updates the running statistics.

        Args:
          x: floating array of any rank.
          use_running_average: the opposite of `train`, as in flax.
          mask: boolean array that broadcasts against x; elements where it is False are
            excluded from the statistics.
          weights: non-negative weights that broadcast against x, in place of a mask; an
            element with weight 2 counts twice.
          scale: conditional scale, applied after the module's own scale and bias. It has
            the shape of the feature axes, or the rank of x and size 1 along axes over which
            it does not vary, such as (N, 1, 1, C) for one scale per sample.
          bias: conditional bias, added last, with the same choice of shapes as scale.
          train: whether to normalise with the batch and update the statistics; overrides
            the mode of the module.
          update: whether to update the statistics; overrides the module's, and otherwise
            defaults to `train`.
          frozen: whether to do neither, whatever the other flags say.

        Raises:
          TypeError: x does not have a real floating dtype, or a flag is not a bool.
          ValueError: x does not have num_features features; an axis is out of range or
            repeated; a mask, weights, scale or bias do not fit x; both a mask and weights
            are given; `train` is missing or contradictory.
        """
        flags = {
            "use_running_average": use_running_average,
            "train": train,
            "update": update,
            "frozen": frozen,
        }
        train, update = modes_of(self, flags)
        state = (self.mean, self.var)
        x, scale, bias, dtype = operands(self, x, self.axis, scale, bias, state)
        features = features_of(self, x, self.axis)
        estimator = while_calibrating(self._follower(), vars(self))
        like = state_like(estimator, features, jnp.float32)
        kept = {name: getattr(self, name) for name in named(like)}
        y, statistics = self._normalize(
            x,
            unnamed(
                {name: shaped(each[...], features) for name, each in kept.items()}, like
            ),
            scale,
            bias,
            train=train,
            update=update,
            feature_axes=self.axis,
            estimator=estimator,
            dtype=dtype,
            **options(self, mask, weights),
        )
        if update:
            for name, value in named(statistics).items():
                # As in flax: a variable backed by a reference cannot hold a tangent. Not
                # `kept[name][...] =`, which would write into an array of NumPy.
                value = jax.lax.stop_gradient(value.reshape(kept[name].shape))
                kept[name].set_value(value)
        return y

    def _follower(self) -> Estimator[Any]:
        """Returns the estimator, or its default."""
        return ema(self.momentum) if self.estimator is None else self.estimator

    def _normalize(self, *arguments: Any, **options: Any) -> tuple[Array, Any]:
        """Applies the norm to the module's parameters and state."""
        return batch_norm(*arguments, ghost_size=self.ghost_size, **options)

    def set_view(
        self,
        use_running_average: bool | None = None,
        train: bool | None = None,
        frozen: bool | None = None,
    ) -> None:
        """Sets the mode, as `nnx.view` does.

        Args:
          use_running_average: the opposite of `train`, as in flax.
          train: whether to normalise with the batch and update the statistics.
          frozen: whether to do neither, whatever the other flags say.
        """
        if frozen is not None:
            self.frozen = frozen
        if use_running_average is not None or train is not None:
            self.use_running_average = not resolve_train(
                train=train, use_running_average=use_running_average
            )

    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return batch_spec(self, x, *modes_of(self, call))
