"""Batch renormalisation as an NNX module."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxnorm.model.spec import NormSpec
from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.norms.batch_renorm import batch_renorm
from jaxnorm.norms.renorm_limits import Limits, check_no_ghosts, renorm_schedule


class BatchRenorm(BatchNorm):
    """Batch renormalisation: normalises in training nearly as in evaluation.

    Has the arguments of `BatchNorm` except `ghost_size`, and its variables, and counts the
    calls that have updated it in `steps`, an `nnx.BatchStat`. See `jaxnorm.batch_renorm`
    for the equation and the source.

    Args:
      num_features: number of features, the product of the sizes of the feature axes.
      limits: `limits(steps) -> (r_max, d_max)`, the limits of the correction after so many
        updates; defaults to the paper's, `jaxnorm.renorm_schedule()`.
      **options: arguments of `BatchNorm`.

    >>> model = BatchRenorm(
    ...     1, limits=lambda steps: (3.0, 5.0), epsilon=0.0, rngs=nnx.Rngs(0)
    ... )
    >>> model(jnp.array([[1.0], [3.0]]))  # the running mean is 0, the standard deviation 1
    Array([[1.],
           [3.]], dtype=float32)
    >>> model.steps[...]
    Array(1., dtype=float32)
    """

    def __init__(
        self, num_features: int, *, limits: Limits = renorm_schedule(), **options: Any
    ):
        super().__init__(num_features, **options)
        check_no_ghosts(self.ghost_size)
        self.limits = limits
        self.steps = nnx.BatchStat(jnp.zeros(()))

    def _normalize(
        self, *arguments: Any, update: bool, **options: Any
    ) -> tuple[Array, Any]:
        """Applies the norm with the limits for the number of updates so far."""
        r_max, d_max = self.limits(self.steps[...])
        result = batch_renorm(
            *arguments, r_max=r_max, d_max=d_max, update=update, **options
        )
        if update:
            self.steps.set_value(self.steps[...] + 1)
        return result

    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return dataclasses.replace(super().norm_spec(x, **call), corrected=True)
