"""Which norms of a model can be folded into which of its layers, and why others cannot."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array

from jaxnorm.axes import canonical_axes
from jaxnorm.dataflow import Dataflow, Source, mark
from jaxnorm.estimators import ema
from jaxnorm.folding import Affine, as_affine, fold_input, fold_output, pads_with_zeros
from jaxnorm.naming import named, state_like, unnamed
from jaxnorm.running import Estimator

Arrays = Mapping[str, Array]
ROOT = "the model"
# A norm whose mean is farther off, in its deviations, costs a layer behind it digits: that
# layer would take in what the norm had centred. At 100, 1e-5 of the output in float32.
MOST_OFF = 100.0


class Layer(NamedTuple):
    """A dense or conv layer of a model.

    Attributes:
      shapes: of its variables, by their names.
      ends: the shapes of its input, "in", and its output, "out".
      layout: of its kernel, as of `fold_output`.
      groups: likewise.
      fills: why no norm before it can be folded into it; "" if one may.
      refusal: why nothing can be folded into it; "" if something may.
    """

    shapes: dict[str, tuple[int, ...]]
    ends: dict[str, tuple[int, ...]]
    layout: str
    groups: int
    fills: str
    refusal: str


class Norm(NamedTuple):
    """A norm with running statistics.

    Attributes:
      shapes: of its variables, by their names.
      ends: the shapes of its input, "in", and its output, "out".
      epsilon: added to the variance.
      estimator: of the statistics.
      dtype: of its output.
      refusal: why it cannot be folded into anything; "" if it may.
    """

    shapes: dict[str, tuple[int, ...]]
    ends: dict[str, tuple[int, ...]]
    epsilon: float
    estimator: Estimator
    dtype: Any
    refusal: str


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


class Report(NamedTuple):
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


def describe_layer(
    module: Any, kind: str, exact: bool, shapes: Any, ends: Any, dtype: Any
) -> Layer:
    """A module of the kind "dense", "conv" or "transposed", by flax's attributes.

    It is not exact if its type is another one made from flax's.
    """
    kernel = shapes.get("kernel", ())
    refusal = fills = ""
    if not exact:
        refusal = f"is a {type(module).__name__}, which may use its kernel in its own way"
    elif kind == "dense" and (len(kernel) != 2 or _others_than_last(module)):
        refusal = f"has a kernel of shape {kernel}, or takes other axes than the last"
    elif getattr(module, "mask", None) is not None:
        refusal = "masks its kernel"
    elif "bias" in shapes and not module.use_bias:
        refusal = "has a bias beside it that is not its own"
    elif not _is_plain(module):
        refusal = "multiplies by a function of its own"
    elif not jnp.issubdtype(dtype, jnp.floating):
        refusal = f"gives {dtype}"
    if kind == "transposed":
        fills = "is transposed"
    elif kind == "conv" and pads_with_zeros(module.padding, kernel[:-2]):
        fills = "pads with zeros"
    elif (np.ravel(getattr(module, "input_dilation", None) or 1) != 1).any():
        fills = "puts zeros into its input"
    elif jnp.finfo(dtype).bits < 32:
        fills = f"computes in {dtype}, too coarse for what the norm has not centred"
    swapped = getattr(module, "transpose_kernel", False)
    return Layer(
        shapes,
        ends,
        layout="." * (len(kernel) - 2) + ("OI" if swapped else "IO"),
        groups=getattr(module, "feature_group_count", 1),
        fills=fills,
        refusal=refusal,
    )


def _others_than_last(module: Any) -> bool:
    return tuple(np.ravel(getattr(module, "axis", -1))) != (-1,)


def _is_plain(module: Any) -> bool:
    """Whether a layer multiplies by what flax's do, unless they are told otherwise."""
    own = {"dot_general": lax.dot_general, "conv_general_dilated": lax.conv_general_dilated}
    return all(
        getattr(module, name, None) in (None, function)
        and getattr(module, f"{name}_cls", None) is None
        for name, function in own.items()
    ) and module.promote_dtype.__module__.startswith("flax.")


def describe_norm(
    module: Any,
    exact: bool,
    shapes: Any,
    ends: Any,
    dtype: Any,
    *,
    train: bool,
    update: bool,
    masked: bool,
) -> Norm:
    """A norm by the attributes that flax's have, called for an x of so many axes."""
    estimator = getattr(module, "estimator", None) or ema(module.momentum)
    refusal = ""
    if "mean" not in shapes:
        raise ValueError(
            f"a {type(module).__name__} of {ends['in'][-1]} features has no running "
            "statistics; give the variables with those in 'batch_stats'."
        )
    if train:
        refusal = "it normalises with the batch, not with running statistics"
    elif update:
        refusal = "it updates its statistics"
    elif masked:
        refusal = "it is given a mask"
    elif not exact:
        refusal = f"it is a {type(module).__name__}, whose arithmetic may be its own"
    elif canonical_axes(module.axis, len(ends["in"])) != (len(ends["in"]) - 1,):
        refusal = f"its features are on axis {module.axis}, not on the last one"
    return Norm(shapes, ends, module.epsilon, estimator, dtype, refusal)


class Watcher:
    """Describes and marks the layers and norms of a model, as it is called around them.

    Attributes:
      layers: what was found, by their paths.
      norms: likewise.
    """

    def __init__(
        self,
        layers: Mapping[type, str],
        norms: tuple[type, ...],
        variables_of: Callable[[Any], dict[str, Array]],
        modes_of: Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[bool, bool]],
    ):
        """For a framework: the kinds of its layers, its norms, and how to read them.

        `variables_of(module)` are the variables of a module by their names, and
        `modes_of(norm, args, kwargs)` whether a norm, called so, trains, and updates.
        """
        self.kinds, self.norm_types = layers, norms
        self.variables_of, self.modes_of = variables_of, modes_of
        self.layers: dict[str, Layer] = {}
        self.norms: dict[str, Norm] = {}

    def __call__(
        self, path: str, module: Any, call: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a module, its input, output and variables marked if it is of interest."""
        # By type(), which tells what stands in a norm's place from the norm.
        kinds = [k for each, k in self.kinds.items() if issubclass(type(module), each)]
        is_norm = issubclass(type(module), self.norm_types)
        if not kinds and not is_norm:
            return call(*args, **kwargs)
        x, args, kwargs = marked_input(args, kwargs, f"{path}:in")
        variables = self.variables_of(module)
        for name, value in variables.items():
            mark(value, f"{path}:{name}")
        y = mark(call(*args, **kwargs), f"{path}:out")
        shapes = {name: jnp.shape(value) for name, value in variables.items()}
        ends = {"in": x.shape, "out": y.shape}
        if is_norm:
            train, update = self.modes_of(module, args, kwargs)
            masked = any(kwargs.get(each) is not None for each in ("mask", "weights"))
            self.norms[path] = describe_norm(
                module,
                type(module) in self.norm_types,
                shapes,
                ends,
                y.dtype,
                train=train,
                update=update,
                masked=masked,
            )
        else:
            exact = type(module) in self.kinds
            self.layers[path] = describe_layer(
                module, kinds[0], exact, shapes, ends, y.dtype
            )
        return y


def marked_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], key: str
) -> tuple[Array, tuple[Any, ...], dict[str, Any]]:
    """What a module is called on, marked, and the arguments with it."""
    if args:
        x = mark(args[0], key)
        return x, (x, *args[1:]), kwargs
    name = next(each for each in ("x", "inputs") if each in kwargs)
    x = mark(kwargs[name], key)
    return x, args, {**kwargs, name: x}


def pair(flow: Dataflow, layers: Mapping[str, Layer], norms: Mapping[str, Norm]) -> Report:
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

    return Report(tuple(decide(norm) for norm in norms))


def _layer_before(
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: Norm
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
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: Norm
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
        refusal = f"it gives {found.dtype}, which is finer centred than not"
    return refusal or Fold(norm, path, into_output=False)


def _refusal(flow: Dataflow, layer: Layer, path: str, norm: Norm, features: int) -> str:
    """Why a norm may not be folded into so many features of a layer; "" if it may."""
    refusal = layer.refusal or _usage(flow, path, layer)
    if not refusal and _is_shared(flow, path, layer):
        refusal = "has variables that are used elsewhere, too"
    if refusal:
        return f"{path or ROOT} {refusal}"
    if norm.shapes["mean"] != (features,):
        return f"{path or ROOT} has {features} features, the norm {norm.shapes['mean']}"
    return ""


def _usage(flow: Dataflow, path: str, found: Layer | Norm) -> str:
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
    report: Report,
    layers: Mapping[str, Layer],
    norms: Mapping[str, Norm],
    arrays: Mapping[str, Arrays],
) -> tuple[Report, dict[str, Arrays]]:
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
    return Report(tuple(done)), changed


def _affine(norm: Norm, arrays: Arrays, *, normalizes_only: bool = False) -> Affine:
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
