"""Decides which norms of a model are folded into which layers, and why others are kept."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from jaxnorm.model.dataflow import Dataflow, Source
from jaxnorm.model.folding.affine import Affine, as_affine, fold_input, fold_output
from jaxnorm.model.modules import Layer, RunningNorm
from jaxnorm.statistics.state_names import named, state_like, unnamed

Arrays = Mapping[str, Array]
ROOT = "the model"
# If a norm's |mean| is more standard deviations than this, folding it costs the layer after
# it precision, as its input is no longer centred. At 100: 1e-5 of the output in float32.
MOST_OFF = 100.0


class Fold(NamedTuple):
    """A norm that is folded.

    Attributes:
      norm: path of the norm.
      layer: path of the layer it is folded into.
      into_output: whether the norm comes after that layer, rather than before it.
    """

    norm: str
    layer: str
    into_output: bool

    def __str__(self) -> str:
        """Formats the fold as a sentence."""
        place = "before" if self.into_output else "after"
        return f"folded into {self.layer or ROOT}, which comes {place} it"


class Kept(NamedTuple):
    """A norm that is kept.

    Attributes:
      norm: path of the norm.
      reason: why it is not folded.
    """

    norm: str
    reason: str

    def __str__(self) -> str:
        """Formats the reason as a sentence."""
        return f"kept: {self.reason}"


class FoldReport(NamedTuple):
    """Which norms of a model were folded or kept, in the order of their calls.

    It prints as a table.

    Attributes:
      norms: for each norm, the layer it was folded into, or why it was kept.
    """

    norms: tuple[Fold | Kept, ...]

    @property
    def folded(self) -> tuple[Fold, ...]:
        """The norms that are folded."""
        return tuple(each for each in self.norms if isinstance(each, Fold))

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The norms that are kept."""
        return tuple(each for each in self.norms if isinstance(each, Kept))

    def __str__(self) -> str:
        """Formats the report as a table."""
        names = [each.norm or ROOT for each in self.norms]
        width = max(map(len, names))
        lines = [
            f"{name:<{width}}  {each}" for name, each in zip(names, self.norms, strict=True)
        ]
        return "\n".join([f"{len(self.folded)} of {len(self.norms)} norms folded:", *lines])


def pair(
    flow: Dataflow, layers: Mapping[str, Layer], norms: Mapping[str, RunningNorm]
) -> FoldReport:
    """Finds the layer that each norm can be folded into, or why there is none."""

    def decide(norm: str) -> Fold | Kept:
        usage = _usage(flow, norm, norms[norm])
        refusal = norms[norm].refusal or (usage and f"it {usage}")
        if refusal:
            return Kept(norm, refusal)
        before = _layer_before(flow, layers, norm, norms[norm])
        if isinstance(before, Fold):
            return before
        after = _layer_after(flow, layers, norm, norms[norm])
        return after if isinstance(after, Fold) else Kept(norm, f"{before}; and {after}")

    return FoldReport(tuple(decide(norm) for norm in norms))


def _layer_before(
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: RunningNorm
) -> Fold | str:
    """Returns the fold into the layer before the norm, or why it is not possible."""
    source = flow.sources[f"{norm}:in"]
    path, _, end = (source.mark or "").rpartition(":")
    if end != "out":
        return f"its input comes from {source.made_by}"
    if path not in layers:
        return f"it normalises the output of {path or ROOT}"
    layer = layers[path]
    features = layer.shapes["kernel"][layer.layout.index("O")]
    refusal = _refusal(flow, layer, path, found, features)
    others = set(flow.uses[f"{path}:out"]) - {f"{norm}:in"}
    if not refusal and others:
        refusal = f"the output of {path or ROOT} also goes to {_list(others)}"
    return refusal or Fold(norm, path, into_output=True)


def _layer_after(
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: RunningNorm
) -> Fold | str:
    """Returns the fold into the layer after the norm, or why it is not possible."""
    uses = flow.uses[f"{norm}:out"]
    paths = [each.removesuffix(":in") for each in uses if each.endswith(":in")]
    if len(uses) != 1 or not paths or paths[0] not in layers:
        return f"its output goes to {_list(set(uses))}"
    path = paths[0]
    layer = layers[path]
    features = layer.shapes["kernel"][layer.layout.index("I")] * layer.groups
    refusal = _refusal(flow, layer, path, found, features)
    if not refusal and layer.fills:
        refusal = f"{path or ROOT}, which comes after it, {layer.fills}"
    if not refusal and jnp.finfo(found.dtype).bits < 32:
        refusal = (
            f"its output is {found.dtype}, which would lose precision without centring"
        )
    return refusal or Fold(norm, path, into_output=False)


def _refusal(
    flow: Dataflow, layer: Layer, path: str, norm: RunningNorm, features: int
) -> str:
    """Why a norm cannot be folded into this many features of a layer; "" if it can."""
    refusal = layer.refusal or _usage(flow, path, layer)
    if not refusal and _is_shared(flow, path, layer):
        refusal = "has variables that are also used elsewhere"
    if refusal:
        return f"{path or ROOT} {refusal}"
    if norm.shapes["mean"] != (features,):
        return (
            f"{path or ROOT} has {features} features, but the norm's statistics have shape "
            f"{norm.shapes['mean']}"
        )
    return ""


def _usage(flow: Dataflow, path: str, found: Layer | RunningNorm) -> str:
    """Why the variables of a module cannot be replaced; "" if they can.

    The module must be called once, outside of any mapped axis, and its variables must be
    inputs of the program.
    """
    calls = flow.marked[f"{path}:in"]
    if calls != 1:
        return f"is called {calls} times"
    for name, shape in found.ends.items():
        if flow.shapes.get(f"{path}:{name}") != shape:
            return "is mapped, or called inside a function that is differentiated"
    for name, shape in found.shapes.items():
        key = f"{path}:{name}"
        # An unused variable may have been dropped from the program.
        source = flow.sources.get(key, Source())
        if source.stored is None or flow.shapes[key] != shape:
            return f"does not use its {name} as it is stored"
    return ""


def _is_shared(flow: Dataflow, path: str, layer: Layer) -> bool:
    """Whether any variable is used by more than the layer itself and its mark."""
    stored = (flow.sources[f"{path}:{name}"].stored for name in layer.shapes)
    return any(each is not None and len(flow.input_uses[each]) > 2 for each in stored)


def _list(uses: set[str]) -> str:
    return ", ".join(sorted(each.removesuffix(":in") for each in uses)) or "nothing"


def fold_pairs(
    report: FoldReport,
    layers: Mapping[str, Layer],
    norms: Mapping[str, RunningNorm],
    arrays: Mapping[str, Arrays],
) -> tuple[FoldReport, dict[str, Arrays]]:
    """Returns the final report, and the new kernel and bias of each changed layer.

    Args:
      report: the result of `pair`.
      layers: the layers, by path.
      norms: the norms, by path.
      arrays: the variables of each layer and norm, by path and name.
    """
    changed: dict[str, Arrays] = {}

    def fold(each: Fold) -> Fold | Kept:
        layer, norm = layers[each.layer], norms[each.norm]
        affine = _affine(norm, arrays[each.norm])
        off = _farthest(_affine(norm, arrays[each.norm], normalizes_only=True))
        current = changed.get(each.layer, arrays[each.layer])
        if not each.into_output and off > MOST_OFF:
            return Kept(
                each.norm,
                f"its |mean| is {off:.3g} standard deviations, so folding it would cost "
                f"{each.layer or ROOT}, which comes after it, precision",
            )
        folding = fold_output if each.into_output else fold_input
        kernel, bias = folding(
            current["kernel"],
            current.get("bias"),
            affine,
            layout=layer.layout,
            groups=layer.groups,
        )
        if not (_is_finite(kernel) and _is_finite(bias)):
            return Kept(
                each.norm,
                f"its statistics, or the new kernel or bias of {each.layer}, are not "
                f"finite in {kernel.dtype}",
            )
        changed[each.layer] = {"kernel": kernel, "bias": bias}
        return each

    done = [fold(each) if isinstance(each, Fold) else each for each in report.norms]
    return FoldReport(tuple(done)), changed


def _affine(norm: RunningNorm, arrays: Arrays, *, normalizes_only: bool = False) -> Affine:
    """Returns the norm as an affine function, with or without its scale and bias."""
    mean = arrays["mean"]
    like = state_like(norm.estimator, mean.shape, mean.dtype)
    state = unnamed({name: arrays[name] for name in named(like)}, like)
    scale, bias = (None if normalizes_only else arrays.get(n) for n in ("scale", "bias"))
    return as_affine(
        state,
        scale,
        bias,
        epsilon=norm.epsilon,
        estimator=norm.estimator,
    )


def _farthest(affine: Affine) -> float:
    """Returns the largest |mean| in standard deviations; 0 if the arrays are traced."""
    off = jnp.abs(affine.scale * affine.centre)
    return 0.0 if isinstance(off, Tracer) else float(jnp.max(off, initial=0.0))


def _is_finite(array: Array) -> bool:
    """Whether all values are finite, or the array is traced."""
    return isinstance(array, Tracer) or bool(jnp.isfinite(array).all())
