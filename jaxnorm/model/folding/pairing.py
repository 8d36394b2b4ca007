"""Which norms of a model can be folded into which of its layers, and why others cannot."""

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
# A norm whose |mean| is more standard deviations than this costs the layer after it digits,
# because its input is no longer centred. At 100, 1e-5 of the output in float32.
MOST_OFF = 100.0


class Fold(NamedTuple):
    """A norm that is folded.

    Attributes:
      norm: its path.
      layer: the path of what it is folded into.
      into_output: whether it normalises that layer's output, or gives it its input.
    """

    norm: str
    layer: str
    into_output: bool

    def __str__(self) -> str:
        """A sentence."""
        place = "before" if self.into_output else "after"
        return f"folded into {self.layer or ROOT}, which comes {place} it"


class Kept(NamedTuple):
    """A norm that is not.

    Attributes:
      norm: its path.
      reason: why it is not.
    """

    norm: str
    reason: str

    def __str__(self) -> str:
        """A sentence."""
        return f"kept: {self.reason}"


class FoldReport(NamedTuple):
    """What became of the norms of a model, in the order in which they were called.

    Printed, it is a table.

    Attributes:
      norms: of each, whether it was folded, and into what, or why it was kept.
    """

    norms: tuple[Fold | Kept, ...]

    @property
    def folded(self) -> tuple[Fold, ...]:
        """The norms that are folded."""
        return tuple(each for each in self.norms if isinstance(each, Fold))

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The norms that are not."""
        return tuple(each for each in self.norms if isinstance(each, Kept))

    def __str__(self) -> str:
        """The table."""
        names = [each.norm or ROOT for each in self.norms]
        width = max(map(len, names))
        lines = [
            f"{name:<{width}}  {each}" for name, each in zip(names, self.norms, strict=True)
        ]
        return "\n".join([f"{len(self.folded)} of {len(self.norms)} norms folded:", *lines])


def pair(
    flow: Dataflow, layers: Mapping[str, Layer], norms: Mapping[str, RunningNorm]
) -> FoldReport:
    """For each norm the layer that it can be folded into, or why there is none."""

    def decide(norm: str) -> Fold | Kept:
        refusal = norms[norm].refusal or _usage(flow, norm, norms[norm])
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
    """The layer whose output the norm normalises, or why none can take it."""
    source = flow.sources[f"{norm}:in"]
    path, _, end = (source.mark or "").rpartition(":")
    if end != "out":
        return f"it normalises what {source.made_by} gives"
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
    """The layer that its output goes into, or why none can take it."""
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
    """Why a norm may not be folded into so many features of a layer; "" if it may."""
    refusal = layer.refusal or _usage(flow, path, layer)
    if not refusal and _is_shared(flow, path, layer):
        refusal = "has variables that are used elsewhere, too"
    if refusal:
        return f"{path or ROOT} {refusal}"
    if norm.shapes["mean"] != (features,):
        return f"{path or ROOT} has {features} features, the norm {norm.shapes['mean']}"
    return ""


def _usage(flow: Dataflow, path: str, found: Layer | RunningNorm) -> str:
    """Why the variables of a module may not be others; "" if they may.

    There has to be one call, not mapped over anything, and they inputs of the program.
    """
    calls = flow.marked[f"{path}:in"]
    if calls != 1:
        return f"is called {calls} times"
    for name, shape in found.ends.items():
        if flow.shapes.get(f"{path}:{name}") != shape:
            return "is mapped, or called where it is differentiated"
    for name, shape in found.shapes.items():
        key = f"{path}:{name}"
        # What nothing is made of may be gone from the program, and is not known.
        source = flow.sources.get(key, Source())
        if source.stored is None or flow.shapes[key] != shape:
            return f"does not use its {name} as it is stored"
    return ""


def _is_shared(flow: Dataflow, path: str, layer: Layer) -> bool:
    """Whether a variable goes into more than the layer itself, and its mark."""
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
    """The report, and the kernel and bias of each layer that norms were folded into.

    Args:
      report: as of `pair`.
      layers: by their paths.
      norms: likewise.
      arrays: the variables of each layer and norm, by its path and their names.
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
                f"its mean is {off:.3g} deviations off, which would cost "
                f"{each.layer or ROOT}, which comes after it, digits",
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
                f"its statistics, or {each.layer} folded with it, are not finite in "
                f"{kernel.dtype}",
            )
        changed[each.layer] = {"kernel": kernel, "bias": bias}
        return each

    done = [fold(each) if isinstance(each, Fold) else each for each in report.norms]
    return FoldReport(tuple(done)), changed


def _affine(norm: RunningNorm, arrays: Arrays, *, normalizes_only: bool = False) -> Affine:
    """What the norm does to each feature, with its scale and bias or without."""
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
    """By how many deviations the mean is off, at most; 0 if that is not known yet."""
    off = jnp.abs(affine.scale * affine.centre)
    return 0.0 if isinstance(off, Tracer) else float(jnp.max(off, initial=0.0))


def _is_finite(array: Array) -> bool:
    """Whether all of it is, or that is not known yet."""
    return isinstance(array, Tracer) or bool(jnp.isfinite(array).all())
