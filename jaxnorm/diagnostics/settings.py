"""How a norm was made and called: what is known of it without its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxnorm.model.modules import is_given
from jaxnorm.model.spec import NormSpec
from jaxnorm.statistics.averages import AgedAverage, PlainAverage
from jaxnorm.statistics.wrappers import Wrapper


@jax.tree_util.register_static
@dataclass(frozen=True)
class Setting:
    """One call of a norm, in either API; a static node of a pytree.

    Attributes:
      path: of its variables, in the model.
      place: how many calls of norms came before.
      kind: the name of its type.
      features: the axes that scale and bias vary over.
      reduced: the axes that the moments are taken over, besides a group's features.
      groups: how many groups the features are of, None without.
      about_zero: whether 0 stands in place of the mean.
      epsilon: what is added to the variance.
      trains: whether it normalises with the batch; None has no other way.
      decay: the weight of the old value in the running statistics; None if there is none.
      plain: whether their start at 0 and 1 is still among them.
      weighted: whether a mask or weights came with the call.
      conditional: whether a scale or bias came with the call.
      ghost_size: samples of a batch that are normalised by themselves; None is all.
      corrected: whether it is a batch renormalisation.
      affine: whether the output is the normalised input, scaled and shifted.
    """

    path: str
    place: int
    kind: str
    features: tuple[int, ...]
    reduced: tuple[int, ...]
    groups: int | None
    about_zero: bool
    epsilon: float
    trains: bool | None
    decay: float | None
    plain: bool
    weighted: bool
    conditional: bool
    ghost_size: int | None
    corrected: bool
    affine: bool

    @property
    def by_batch(self) -> bool:
        """Whether it is a batch norm, and normalised with the batch in this call."""
        return self.trains is True


def setting_of(
    path: str, place: int, module: Any, spec: NormSpec, call: Mapping[str, Any]
) -> Setting:
    """Returns the setting of a norm that is called with these arguments, by their names.

    >>> from jaxnorm import ema
    >>> spec = NormSpec((1,), (0,), 1e-5, estimator=ema(0.9), train=True)
    >>> setting_of("norm", 0, object(), spec, {"mask": jnp.ones(3, bool)}).weighted
    True
    """
    within = _innermost(spec.estimator)
    return Setting(
        path=path,
        place=place,
        kind=type(module).__name__,
        features=spec.feature_axes,
        reduced=spec.reduction_axes,
        groups=spec.num_groups,
        about_zero=not spec.centred,
        epsilon=spec.epsilon,
        trains=spec.train,
        decay=within.decay if isinstance(within, PlainAverage | AgedAverage) else None,
        plain=isinstance(within, PlainAverage),
        weighted=is_given(call, "mask", "weights"),
        conditional=is_given(call, "scale", "bias"),
        ghost_size=spec.ghost_size,
        corrected=spec.corrected,
        affine=spec.affine,
    )


def _innermost(estimator: Any) -> Any:
    """The estimator within all wrappers."""
    while isinstance(estimator, Wrapper):
        estimator = estimator.estimator
    return estimator
