"""Several estimators in one norm, so that one network can be evaluated with each of them.

Training does not read the running statistics, so networks that differ only in their
estimator are the same network. It is trained once, and its norms update all estimators.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnorm import Estimator, Moments


class Kept(NamedTuple):
    """The state of `Several`.

    Attributes:
      statistics: the state of the first estimator.
      others: the states of the others, by name.
    """

    statistics: Any
    others: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Several(Estimator):
    """Updates several estimators; reads as the first of them.

    Attributes:
      estimators: pairs of a name and an estimator.
    """

    estimators: tuple[tuple[str, Estimator], ...]

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Kept:
        """Returns the state of each estimator."""
        first, *others = (each.init(shape, dtype) for _, each in self.estimators)
        names = [name for name, _ in self.estimators[1:]]
        return Kept(first, dict(zip(names, others, strict=True)))

    def update(self, state: Kept, moments: Moments) -> Kept:
        """Updates each estimator with the same batch."""
        (_, first), *others = self.estimators
        return Kept(
            first.update(state.statistics, moments),
            {name: each.update(state.others[name], moments) for name, each in others},
        )

    def read(self, state: Kept) -> Moments:
        """Reads the first estimator."""
        return self.estimators[0][1].read(state.statistics)


def by(name: str, model: nn.Module, variables: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Returns the model with only the estimator of this name, and its variables.

    Args:
      name: the name of one of the estimators.
      model: a model with an attribute `estimator`, which is `Several`.
      variables: the model's variables.
    """
    several: Any = model
    estimators = dict(several.estimator.estimators)
    first = name == next(iter(estimators))
    prefix = "" if first else f"others_{name}_"

    def only(statistics: Mapping[str, Any]) -> dict[str, Any]:
        if "mean" not in statistics:  # not a norm, but a module with layers in it
            return {layer: only(within) for layer, within in statistics.items()}
        return {
            field.removeprefix(prefix): value
            for field, value in statistics.items()
            if field.startswith(prefix) and not (first and field.startswith("others_"))
        }

    statistics = only(variables["batch_stats"])
    one = model.clone(estimator=estimators[name])
    return one, {**variables, "batch_stats": statistics}
