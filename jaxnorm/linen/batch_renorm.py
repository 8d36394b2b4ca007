"""Batch renormalisation as a Linen module."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jaxnorm.linen.batch import BatchNorm
from jaxnorm.linen.state import path_of
from jaxnorm.model.spec import NormSpec
from jaxnorm.norms.batch_renorm import batch_renorm
from jaxnorm.norms.renorm_limits import Limits, check_no_ghosts, renorm_schedule
from jaxnorm.statistics.wrappers import COLLECTORS


class BatchRenorm(BatchNorm):
    """Batch renormalisation: normalises in training nearly as in evaluation.

    Has the arguments of `BatchNorm` except `ghost_size`, and its variables, and counts the
    calls that have updated it in `batch_stats/steps`. See `jaxnorm.batch_renorm` for the
    equation and the source.

    Attributes:
      limits: `limits(steps) -> (r_max, d_max)`, the limits of the correction after so many
        updates; defaults to the paper's, `jaxnorm.renorm_schedule()`.

    >>> model = BatchRenorm(limits=lambda steps: (3.0, 5.0), momentum=0.5, epsilon=0.0)
    >>> x = jnp.array([[1.0], [3.0]])
    >>> variables = model.init(jax.random.key(0), x, train=False)
    >>> y, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    >>> y  # the running mean is 0, the standard deviation 1
    Array([[1.],
           [3.]], dtype=float32)
    >>> updates["batch_stats"]["steps"]
    Array(1., dtype=float32)
    """

    limits: Limits = renorm_schedule()

    def _normalize(
        self, *arguments: Any, update: bool, **options: Any
    ) -> tuple[Array, Any]:
        """Applies the norm with the limits for the number of updates so far."""
        check_no_ghosts(self.ghost_size)
        steps = jnp.zeros(())
        if self.is_initializing() or self.has_variable("batch_stats", "steps"):
            steps = self.variable("batch_stats", "steps", lambda: steps).value
        elif update:
            raise ValueError(
                f"{path_of(self)} has statistics without 'steps', by which its limits "
                "grow; take them from init's, and set how many batches it was trained with."
            )
        r_max, d_max = self.limits(steps)
        result = batch_renorm(
            *arguments, r_max=r_max, d_max=d_max, update=update, **options
        )
        if update and not self.has_variable("batch_stats", COLLECTORS[0]):
            self.put_variable("batch_stats", "steps", steps + 1)
        return result

    @nn.nowrap
    def norm_spec(self, x: Any, **call: Any) -> NormSpec:
        """Describes a call to `diagnose`, `fold` and `parameter_labels`."""
        return dataclasses.replace(super().norm_spec(x, **call), corrected=True)
