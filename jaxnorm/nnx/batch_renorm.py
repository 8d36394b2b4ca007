"""Batch renormalisation as an NNX module."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.norms.batch_renorm import batch_renorm
from jaxnorm.norms.renorm_limits import Limits, check_no_ghosts, renorm_schedule


class BatchRenorm(BatchNorm):
    """Batch renormalisation: `BatchNorm` that normalises in training as in evaluation.

    Takes the arguments of `BatchNorm`, but for ghost batches, and keeps the same variables,
    and in `steps`, an `nnx.BatchStat`, how many calls have updated it, whatever these had
    in them. See `jaxnorm.batch_renorm` for the equation and the source.

    Args:
      num_features: how many features x has, on all feature axes together.
      limits: `limits(steps) -> (r_max, d_max)`, by how much a batch may be corrected after
        so many; by default as in the paper, `jaxnorm.renorm_schedule()`.
      **options: those of `BatchNorm`.

    >>> model = BatchRenorm(
    ...     1, limits=lambda steps: (3.0, 5.0), epsilon=0.0, rngs=nnx.Rngs(0)
    ... )
    >>> model(jnp.array([[1.0], [3.0]]))  # as by the running mean 0 and deviation 1
    Array([[1.],
           [3.]], dtype=float32)
    >>> model.steps[...]
    Array(1, dtype=int32)
    """

    def __init__(
        self, num_features: int, *, limits: Limits = renorm_schedule(), **options: Any
    ):
        super().__init__(num_features, **options)
        check_no_ghosts(self.ghost_size)
        self.limits = limits
        self.steps = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def normalize(self, *arguments: Any, update: bool, **options: Any) -> tuple[Array, Any]:
        """With the limits for the number of batches so far."""
        r_max, d_max = self.limits(self.steps[...])
        result = batch_renorm(
            *arguments, r_max=r_max, d_max=d_max, update=update, **options
        )
        if update:
            self.steps[...] += 1
        return result
