"""Batch normalisation as a Linen module."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxnorm._core.axes import canonical_axes, complement, sizes_of
from jaxnorm._core.dtypes import as_input
from jaxnorm._core.operands import Rounding
from jaxnorm.linen.modes import modes_of
from jaxnorm.linen.parameters import affine, options
from jaxnorm.linen.state import check_state, keep_state
from jaxnorm.model.spec import NormSpec, batch_spec
from jaxnorm.norms.batch import batch_norm
from jaxnorm.statistics.averages import Schedule, ema
from jaxnorm.statistics.estimator import Estimator
from jaxnorm.statistics.state_names import named
from jaxnorm.statistics.wrappers import while_calibrating


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics.

    A drop-in replacement for `flax.linen.BatchNorm`, with the same arguments and defaults.
    The variables are the same as well, so checkpoints are interchangeable:
    `params/{scale,bias}` and `batch_stats/{mean,var}`, with the shape of the feature axes.
    See `jaxnorm.batch_norm` for the equation, the errors about shapes and dtypes, and the
    source.

    `init` creates the variables without updating them. In training, the norm updates
    `batch_stats`, which must be mutable; in evaluation it only reads them, and they must
    exist.

    Attributes:
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
      axis_name: mapped axes across which the batch is split. Ignored during
        initialisation.
      axis_index_groups: groups of indices along axis_name; each group forms one batch.
      use_fast_variance: accepted, but has no effect. The variance is always computed from
        x − μ; flax's E[x²] − μ² suffers from cancellation.
      force_float32_reductions: if False, the running statistics are stored in param_dtype.
        Reductions are in at least float32 either way.
      rounding: when the output is rounded to `dtype`; see `jaxnorm.normalize`.
      train: whether to normalise with the batch and update the statistics. May be given
        here or in the call; if given in both, the two must agree.
      update: whether to update the statistics; defaults to `train`. May be given here or in
        the call; if given in both, the two must agree.
      estimator: how the running statistics follow the batches; defaults to
        `jaxnorm.ema(momentum)`. Fields of its state other than mean and var are stored in
        `batch_stats` under their own names.
      frozen: whether to normalise with the running statistics and never update them,
        whatever the other flags say, as when fine-tuning. May be given here or in the
        call. See `freeze` for parts of a model.
      ghost_size: number of samples per ghost batch in training; defaults to no ghosts.

    >>> model = BatchNorm(momentum=0.9)
    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    >>> variables = model.init(jax.random.key(0), x, train=False)
    >>> y, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> updates["batch_stats"]["mean"]
    Array([0.2, 2. ], dtype=float32)
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: float | Array | Schedule = 0.99
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
    frozen: bool = False
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
          train: whether to normalise with the batch and update the statistics.
          update: whether to update the statistics; defaults to `train`.
          frozen: whether to do neither, whatever the other flags say.

        Raises:
          TypeError: x does not have a real floating dtype, or a flag is not a bool.
          ValueError: `train` is missing or contradictory; the statistics are missing in
            evaluation, immutable where they are to be updated, or not those of the
            estimator; both a mask and weights are given.
        """
        flags = {
            "use_running_average": use_running_average,
            "train": train,
            "update": update,
            "frozen": frozen,
        }
        train, update = modes_of(self, flags)
        initializing = self.is_initializing()
        x = as_input(x)
        axes = canonical_axes(self.axis, x.ndim)
        features = sizes_of(x.shape, axes)
        batch = sizes_of(x.shape, complement(axes, x.ndim))
        estimator = while_calibrating(
            ema(self.momentum) if self.estimator is None else self.estimator,
            self.variables.get("batch_stats", {}),
        )
        check_state(self, train, update)
        kept_in = jnp.float32 if self.force_float32_reductions else self.param_dtype
        kept, state = keep_state(self, estimator, features, kept_in, update)
        scale, bias, dtype = affine(self, x, self.axis, scale, bias)

        y, statistics = self._normalize(
            x,
            state,
            scale,
            bias,
            # In `init`, one example or an empty batch may stand for a batch.
            train=train and not (initializing and (set(batch) <= {1} or 0 in batch)),
            update=update and not initializing,
            feature_axes=self.axis,
            estimator=estimator,
            dtype=dtype,
            **options(self, mask, weights),
        )
        if update and not initializing:
            for name, value in named(statistics).items():
                kept[name].value = value
        return y

    @nn.nowrap
    def _normalize(self, *arguments: Any, **options: Any) -> tuple[Array, Any]:
        """Applies the norm to the module's parameters and state."""
        return batch_norm(*arguments, ghost_size=self.ghost_size, **options)

    @nn.nowrap
    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return batch_spec(self, x, *modes_of(self, call))
