"""Records calls of norms, and observes in each a few numbers per feature.

A model returns what its norms are called on, and what they return. These arrays are
observed outside its program, so that one compiled observation serves all norms of one kind
and shape. Within the program it would be compiled again for each call of a norm, which
takes several times as long as compiling the model.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnorm._core.axes import complement, sizes_of
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.measurement import measure, measure_about_zero, measure_groups
from jaxnorm._core.moments import Moments
from jaxnorm._core.weights import as_weights, clear, one_weighting, weighted
from jaxnorm.diagnostics.activations import Range
from jaxnorm.diagnostics.padding import padded_share
from jaxnorm.diagnostics.settings import Setting, setting_of
from jaxnorm.model.spec import NormSpec

KEPT = ("scale", "bias", "mean", "var", "updates", "count", "batches")
# Of a constant the variance is that of its rounding.
ROUNDING = 1e-6


class Observed(NamedTuple):
    """What one batch does at a norm; an array a feature, flat, where no shape is said.

    Attributes:
      x: the Moments of what goes in, over all axes but the features.
      y: those of what comes out.
      number: how many samples a mean is taken of, of shape ().
      samples: how many entries of the first axis have weight, of shape ().
      dead: the share of the variances taken that are below ε.
      constant: the share of them that are 0, but for rounding.
      saturated: the share of outputs beyond the range of the activation.
      nonfinite: how many values of x, and of y, are not finite, of shape (2,).
      padding: the share of positions that are padding without a mask, of shape ().
      kept: the module's variables before the call: scale, bias, mean, var, …
    """

    x: Moments
    y: Moments
    number: Array
    samples: Array
    dead: Array
    constant: Array
    saturated: Array
    nonfinite: Array
    padding: Array
    kept: dict[str, Array]


class Arrays(NamedTuple):
    """The arrays of one call of a norm.

    Attributes:
      x: what goes in.
      y: what comes out.
      weights: a mask or weights that broadcast against x, or None.
      kept: the module's variables before the call, by their names.
    """

    x: Array
    y: Array
    weights: Array | None
    kept: dict[str, Array]


class Call(NamedTuple):
    """A call of a norm, or one for each index of a transform such as nnx.scan.

    Attributes:
      setting: how the norm was made and called.
      arrays: its arrays, with axes of indices before their own.
      index: zeros with the axes of indices, of shape () without a transform.
    """

    setting: Setting
    arrays: Arrays
    index: Array  # pyright: ignore[reportIncompatibleMethodOverride]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Unexamined:
    """A norm of a model that the report says nothing about; a static node of a pytree.

    Attributes:
      path: the path of its variables.
      kind: the name of its type.
      reason: why it is not examined.
    """

    path: str
    kind: str
    reason: str


UNKNOWN = "has no norm_spec"


class Recorded(NamedTuple):
    """What a model does on a batch in one mode.

    Attributes:
      output: what it returns.
      calls: the calls of its norms.
      unexamined: norms that may not be among them.
    """

    output: Any
    calls: list[Call]
    unexamined: list[Unexamined]


class Recorder:
    """Records the calls of norms, one after another, while a model is traced.

    Attributes:
      calls: the number of calls recorded.
      unexamined: norms that were called, but may not be recorded.
    """

    def __init__(self) -> None:
        """Nothing is recorded yet."""
        self.calls = 0
        self.unexamined: list[Unexamined] = []

    def note(self, path: str, module: Any, reason: str) -> None:
        """Notes a norm that is not recorded, or whose record may be lost."""
        self.unexamined.append(Unexamined(path, type(module).__name__, reason))

    def record(
        self,
        path: str,
        module: Any,
        spec: NormSpec,
        x: Any,
        given: Mapping[str, Any],
        y: Any,
        variables: Mapping[str, Any],
    ) -> Call:
        """Records a call of a norm that returned y, and had these variables before."""
        setting = setting_of(path, self.calls, module, spec, given)
        self.calls += 1
        weights = one_weighting(given.get("mask"), given.get("weights"))
        kept = {name: jnp.asarray(variables[name]) for name in KEPT if name in variables}
        weights = None if weights is None else jnp.asarray(weights)
        arrays = Arrays(jnp.asarray(x), jnp.asarray(y), weights, kept)
        return Call(setting, arrays, jnp.zeros(()))


def observe(setting: Setting, arrays: Arrays, active: Range | None) -> Observed:
    """What a call of a norm shows: arrays that are small beside x, on the device.

    Args:
      setting: of the norm and the call.
      arrays: its arrays.
      active: the range of the activation that follows, or None.
    """
    # Where in the model a norm is does not matter, so that norms alike share a program.
    return _observe(arrays, dataclasses.replace(setting, path="", place=0), active)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _observe(arrays: Arrays, setting: Setting, active: Range | None) -> Observed:
    x, y, weights, kept = arrays
    x, y = as_floating(x), as_floating(y)
    weights = None if weights is None else as_weights(weights, x)
    used = None if weights is None else jnp.broadcast_to(weighted(weights), x.shape)
    others = complement(setting.features, x.ndim)
    features = sizes_of(x.shape, setting.features)
    own, mean_square = _own(setting, x, weights)

    def share(flags: Array) -> Array:
        """Of the moments taken, that are of anything, for each feature."""
        seen = own.count > 0
        kept = [i for i in range(x.ndim) if i not in setting.reduced]
        axes = tuple(kept.index(i) for i in kept if i not in setting.features)
        # What is reduced over features has no axis of them, and is the same for all.
        of = jnp.sum(flags & seen, axes) / jnp.maximum(jnp.sum(seen, axes), 1)
        return of if of.shape == features else jnp.full(features, jnp.mean(of))

    inside = jnp.zeros(y.shape, bool)
    beyond = inside if active is None else (y <= active.low) | (y >= active.high)
    observed = Observed(
        x=measure(x, others, weights),
        y=measure(y, others, weights),
        number=_count(setting, own, x),
        samples=_samples(x, used, others),
        dead=share(own.var < setting.epsilon),
        constant=share(own.var <= jnp.square(ROUNDING) * mean_square),
        saturated=measure(beyond.astype(jnp.float32), others, weights).mean,
        nonfinite=jnp.stack([jnp.sum(~jnp.isfinite(clear(z, used))) for z in (x, y)]),
        padding=padded_share(x, used, setting.features, setting.reduced),
        kept=kept,
    )
    return _flat(observed)


def _own(setting: Setting, x: Array, weights: Any) -> tuple[Moments, Array]:
    """The moments that the norm itself takes, and the mean square of what they are of."""
    reduced, features = setting.reduced, setting.features
    if setting.groups is not None:
        own = measure_groups(x, reduced, features, setting.groups, weights)
    elif setting.about_zero:
        own = measure_about_zero(x, reduced, weights)
    else:
        own = measure(x, reduced, weights)
    return own, jnp.square(own.mean) + own.var


def _count(setting: Setting, own: Moments, x: Array) -> Array:
    """The count in the middle, of the moments of anything; of a ghost its share."""
    count = jnp.nanmedian(jnp.where(own.count > 0, own.count, jnp.nan))
    size = x.shape[setting.reduced[0]] if setting.reduced else 1
    if setting.by_batch and setting.ghost_size is not None:
        count = count * min(1.0, setting.ghost_size / size)
    return jnp.where(jnp.isnan(count), 0, count)


def _samples(x: Array, used: Array | None, others: tuple[int, ...]) -> Array:
    first = x.shape[others[0]] if others else 1
    if used is None or not others:
        return jnp.array(first, jnp.float32)
    rest = complement((others[0],), x.ndim)
    return jnp.sum(used.any(rest)).astype(jnp.float32)


def _flat(observed: Observed) -> Observed:
    """With one axis of features, whatever axes they lie on."""

    def flat(array: Array) -> Array:
        return array.reshape(-1)

    return observed._replace(
        x=Moments(*map(flat, observed.x)),
        y=Moments(*map(flat, observed.y)),
        dead=flat(observed.dead),
        constant=flat(observed.constant),
        saturated=flat(observed.saturated),
        kept={name: flat(each) for name, each in observed.kept.items()},
    )
