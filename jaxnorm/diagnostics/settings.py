"""How a norm was made and called: what is known of it before anything is traced."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxnorm._core.axes import (
    canonical_axes,
    complement,
    spatial_axes,
    spatial_axes_of_groups,
)
from jaxnorm.statistics.averages import PlainAverage
from jaxnorm.statistics.wrappers import Wrapper


@jax.tree_util.register_static
@dataclass(frozen=True)
class Setting:
    """One call of a norm, of jaxnorm or of flax, in either API; no arrays, in a pytree.

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
      ghost_size: samples of a batch that are normalised by themselves; None is all.
      corrected: whether it is a batch renormalisation.
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
    ghost_size: int | None
    corrected: bool

    @property
    def by_batch(self) -> bool:
        """Whether it is a batch norm, and normalised with the batch in this call."""
        return self.trains is True


def setting_of(
    path: str,
    place: int,
    module: Any,
    x: Any,
    said: Mapping[str, Any],
) -> Setting:
    """The setting of a norm that is called on x, and with what is said, by its names.

    It goes by attributes, which those of flax and of jaxnorm have in common.

    >>> from types import SimpleNamespace
    >>> norm = SimpleNamespace(axis=-1, epsilon=1e-5, momentum=0.9)
    >>> setting_of("norm", 0, norm, jnp.ones((8, 3)), {"train": True}).reduced
    (0,)
    """
    features, reduced = _axes(module, x)
    estimator = getattr(module, "estimator", None)
    flags = _flags(module, said) if hasattr(module, "momentum") else []
    return Setting(
        path=path,
        place=place,
        kind=type(module).__name__,
        features=features,
        reduced=reduced,
        groups=_groups(module, x),
        about_zero=not hasattr(module, "use_bias") and not hasattr(module, "momentum"),
        epsilon=float(module.epsilon),
        trains=flags[0] if flags else None,
        decay=_decay(module, estimator),
        plain=hasattr(module, "momentum") and _is_plain(estimator),
        weighted=any(said.get(name) is not None for name in ("mask", "weights")),
        ghost_size=getattr(module, "ghost_size", None),
        corrected=hasattr(module, "limits"),
    )


def _axes(module: Any, x: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Those of the features, and those reduced."""
    if hasattr(module, "momentum"):
        features = canonical_axes(module.axis, x.ndim)
        return features, complement(features, x.ndim)
    if hasattr(module, "num_groups"):
        features = canonical_axes(getattr(module, "feature_axes", -1), x.ndim)
        return features, spatial_axes_of_groups(x.shape, features, module.reduction_axes)
    features = canonical_axes(module.feature_axes, x.ndim)
    if hasattr(module, "reduction_axes"):
        return features, canonical_axes(module.reduction_axes, x.ndim)
    return features, spatial_axes(x.shape, features, None)


def _groups(module: Any, x: Any) -> int | None:
    if not hasattr(module, "num_groups"):
        return None
    return module.num_groups or x.shape[-1] // module.group_size


def _flags(module: Any, said: Mapping[str, Any]) -> list[bool]:
    """Whether it trains, by all that say so: the call first, as it goes before in NNX."""
    flags = [
        (said.get("use_running_average"), False),
        (said.get("train"), True),
        (getattr(module, "use_running_average", None), False),
        (getattr(module, "train", None), True),  # a method in NNX
    ]
    return [
        bool(flag) is means
        for flag, means in flags
        if flag is not None and not callable(flag)
    ]


def _decay(module: Any, estimator: Any) -> float | None:
    if estimator is None:
        return getattr(module, "momentum", None)
    within = _innermost(estimator)
    return getattr(within, "decay", None)


def _is_plain(estimator: Any) -> bool:
    """Whether it is a moving average that keeps no count by which its start is told."""
    within = _innermost(estimator)
    return within is None or isinstance(within, PlainAverage)


def _innermost(estimator: Any) -> Any:
    """The estimator within all wrappers."""
    while isinstance(estimator, Wrapper):
        estimator = estimator.estimator
    return estimator
