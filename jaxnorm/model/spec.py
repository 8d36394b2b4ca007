"""How norms describe themselves to functions that analyse whole models."""

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jaxnorm._core.axes import (
    canonical_axes,
    complement,
    sizes_of,
    spatial_axes,
    spatial_axes_of_groups,
)
from jaxnorm.statistics.averages import ema
from jaxnorm.statistics.estimator import Estimator


@dataclass(frozen=True)
class NormSpec:
    """Describes one call of a norm to `diagnose`, `fold`, `calibrate` and others.

    These functions recognise a custom module if it has a method `norm_spec(x, **call)` that
    returns a NormSpec. x is the input of the module; only its shape matters. `call` holds
    the other arguments of the call, by name. A scale, a bias and running statistics must be
    variables named scale, bias, mean and var.

    Attributes:
      feature_axes: the axes over which scale and bias vary, as sorted non-negative ints.
      reduction_axes: the axes over which the moments are taken, as sorted non-negative
        ints; with groups, without the feature axes.
      epsilon: added to the variance.
      num_groups: number of groups of features that share their moments; None if there are
        no groups.
      centred: whether the mean is subtracted.
      estimator: how the running statistics are updated; None if there are none.
      train: whether this call normalises with the moments of x; None if the norm has no
        running statistics.
      update: whether this call updates the running statistics.
      ghost_size: number of samples per ghost batch; None without ghost batches.
      corrected: whether the training output is corrected towards the evaluation output, as
        in batch renormalisation.
      affine: whether the output is (x − μ)·scale/√(σ² + epsilon) + bias, so that the norm
        can be folded into a layer; False if the norm does anything else.

    >>> import flax.linen as nn
    >>> class CentredNorm(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         return x - x.mean(-1, keepdims=True)
    ...
    ...     def norm_spec(self, x):
    ...         return NormSpec((x.ndim - 1,), (x.ndim - 1,), 0.0, affine=False)
    >>> CentredNorm().norm_spec(jnp.ones((8, 3))).centred
    True
    """

    feature_axes: tuple[int, ...]
    reduction_axes: tuple[int, ...]
    epsilon: float
    num_groups: int | None = None
    centred: bool = True
    estimator: Estimator[Any] | None = None
    train: bool | None = None
    update: bool = False
    ghost_size: int | None = None
    corrected: bool = False
    affine: bool = True


NAMED = re.compile(r"Norm(ali[sz]ation)?(_?\d[dD])?$")

# `describe(module, x, call) -> NormSpec`, for classes that have no `norm_spec`.
Describe = Callable[[Any, Any, Mapping[str, Any]], NormSpec]


@dataclass(frozen=True)
class Norms:
    """Recognises and describes the norms of a framework.

    Attributes:
      described: functions that describe the framework's own classes, by class.
      others: classes of the framework that are named norms, but normalise parameters.
    """

    described: Mapping[type, Describe]
    others: tuple[type, ...] = ()

    def __contains__(self, module: Any) -> bool:
        """Whether a module is a norm, by its type rather than by its `__class__`."""
        return self.is_kind(type(module))

    def is_kind(self, kind: type) -> bool:
        """Whether modules of a class are norms."""
        return hasattr(kind, "norm_spec") or issubclass(kind, tuple(self.described))

    def is_exact(self, module: Any) -> bool:
        """Whether the description is for the module's own class, rather than inherited."""
        kind = type(module)
        return "norm_spec" in vars(kind) or kind in self.described

    def may_be(self, kind: type, statistics: Collection[str]) -> bool:
        """Whether a class that is not recognised may be a norm, for a message to users.

        It may be if it keeps running statistics with these names, mean and var, or if its
        name ends in Norm or Normalization.
        """
        if self.is_kind(kind) or issubclass(kind, self.others):
            return False
        return {"mean", "var"} <= set(statistics) or bool(NAMED.search(kind.__name__))

    def spec(self, module: Any, x: Any, call: Mapping[str, Any]) -> NormSpec:
        """Describes a call of a norm, with the arguments as `arguments_of` returns them."""
        if hasattr(type(module), "norm_spec"):
            return module.norm_spec(x, **call)
        describe = next(
            each for kind, each in self.described.items() if issubclass(type(module), kind)
        )
        return describe(module, x, call)


def arguments_of(
    module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Returns the input of a module, and the other arguments of the call by name."""
    bound = inspect.signature(type(module).__call__).bind(module, *args, **kwargs)
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            given |= {f"{name}[{i}]": each for i, each in enumerate(value)}
        else:
            given[name] = value
    name, x = next(iter(given.items()))
    return x, {other: value for other, value in given.items() if other != name}


def layer_spec(module: Any, x: Any, **others: Any) -> NormSpec:
    """Describes a norm with the attributes feature_axes, reduction_axes and epsilon."""
    return NormSpec(
        canonical_axes(module.feature_axes, x.ndim),
        canonical_axes(module.reduction_axes, x.ndim),
        float(module.epsilon),
        **others,
    )


def instance_spec(module: Any, x: Any, **others: Any) -> NormSpec:
    """Describes an instance norm, with the attributes feature_axes and epsilon."""
    features = canonical_axes(module.feature_axes, x.ndim)
    reduced = spatial_axes(x.shape, features, None)
    return NormSpec(features, reduced, float(module.epsilon), **others)


def group_spec(module: Any, x: Any) -> NormSpec:
    """Describes a group norm by flax's attributes; feature_axes is optional."""
    features = canonical_axes(getattr(module, "feature_axes", -1), x.ndim)
    reduced = spatial_axes_of_groups(x.shape, features, module.reduction_axes)
    number = math.prod(sizes_of(x.shape, features))
    groups = module.num_groups or number // module.group_size
    return NormSpec(features, reduced, float(module.epsilon), groups)


def batch_spec(module: Any, x: Any, train: bool, update: bool) -> NormSpec:
    """Describes a batch norm by flax's attributes; jaxnorm's own are optional."""
    features = canonical_axes(module.axis, x.ndim)
    return NormSpec(
        features,
        complement(features, x.ndim),
        float(module.epsilon),
        estimator=getattr(module, "estimator", None) or ema(module.momentum),
        train=train,
        update=update,
        ghost_size=getattr(module, "ghost_size", None),
    )


def norms_of(framework: Any, modes_of: Callable[..., tuple[bool, bool]]) -> Norms:
    """Returns the norms of flax.linen or flax.nnx, and those that describe themselves.

    `modes_of(module, call)` returns whether a batch norm trains, and whether it updates.
    """
    return Norms(
        {
            framework.BatchNorm: lambda module, x, call: batch_spec(
                module, x, *modes_of(module, call)
            ),
            framework.LayerNorm: lambda module, x, call: layer_spec(module, x),
            framework.RMSNorm: lambda module, x, call: layer_spec(module, x, centred=False),
            framework.InstanceNorm: lambda module, x, call: instance_spec(module, x),
            framework.GroupNorm: lambda module, x, call: group_spec(module, x),
        },
        others=(framework.SpectralNorm, framework.WeightNorm),
    )
