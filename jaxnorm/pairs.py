"""Which norms of a model can be folded into which of its layers, and why others cannot."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jaxnorm.axes import canonical_axes
from jaxnorm.dataflow import Dataflow, mark
from jaxnorm.estimators import ema
from jaxnorm.folding import Affine, as_affine, fold_input, fold_output, pads_with_zeros
from jaxnorm.naming import named, state_like, unnamed
from jaxnorm.running import Estimator

Arrays = Mapping[str, Array]


class Layer(NamedTuple):
    """A dense or conv layer of a model.

    Attributes:
      shapes: of its variables, by their names.
      layout: of its kernel, as of `fold_output`.
      groups: likewise.
      fills: whether it puts zeros around its input, or into it.
      refusal: why nothing can be folded into it; "" if something may.
    """

    shapes: dict[str, tuple[int, ...]]
    layout: str
    groups: int
    fills: bool
    refusal: str


class Norm(NamedTuple):
    """A norm with running statistics.

    Attributes:
      shapes: of its variables, by their names.
      epsilon: added to the variance.
      estimator: of the statistics.
      dtype: of its output.
      refusal: why it cannot be folded into anything; "" if it may.
    """

    shapes: dict[str, tuple[int, ...]]
    epsilon: float
    estimator: Estimator
    dtype: Any
    refusal: str


class Fold(NamedTuple):
    """A norm that is folded.

    Attributes:
      norm: its path.
      layer: the path of what it is folded into.
      behind: whether it comes behind that layer, or before it.
    """

    norm: str
    layer: str
    behind: bool

    def __str__(self) -> str:
        """A sentence."""
        return f"folded into {self.layer} {'before' if self.behind else 'behind'} it"


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
        width = max(len(each.norm) for each in self.norms)
        lines = [f"{each.norm:<{width}}  {each}" for each in self.norms]
        return "\n".join([f"{len(self.folded)} of {len(self.norms)} norms folded:", *lines])


def describe_layer(module: Any, kind: str, exact: bool, shapes: dict[str, Any]) -> Layer:
    """A module of the kind "dense", "conv" or "transposed", by flax's attributes.

    It is not exact if its type is another one made from flax's.
    """
    kernel = shapes.get("kernel", ())
    rank = len(kernel)
    refusal = ""
    if not exact:
        refusal = f"is a {type(module).__name__}, which may use its kernel in its own way"
    elif kind == "dense" and rank != 2:
        refusal = f"has a kernel of shape {kernel}, not of two axes"
    elif getattr(module, "mask", None) is not None:
        refusal = "masks its kernel"
    spatial = "." * (rank - 2)
    swapped = getattr(module, "transpose_kernel", False)
    dilation = np.ravel(getattr(module, "input_dilation", None) or 1)
    padded = kind == "conv" and pads_with_zeros(module.padding, kernel[:-2])
    return Layer(
        shapes,
        layout=spatial + ("OI" if swapped else "IO"),
        groups=getattr(module, "feature_group_count", 1),
        fills=kind == "transposed" or padded or bool((dilation != 1).any()),
        refusal=refusal,
    )


def describe_norm(
    module: Any,
    exact: bool,
    shapes: dict[str, Any],
    rank: int,
    dtype: Any,
    *,
    train: bool,
    update: bool,
    masked: bool,
) -> Norm:
    """A norm by the attributes that flax's have, called for an x of so many axes."""
    estimator = getattr(module, "estimator", None) or ema(module.momentum)
    refusal = ""
    if train:
        refusal = "it normalises with the batch, not with running statistics"
    elif update:
        refusal = "it updates its statistics"
    elif masked:
        refusal = "it is given a mask"
    elif not exact:
        refusal = f"it is a {type(module).__name__}, whose arithmetic may be its own"
    elif canonical_axes(module.axis, rank) != (rank - 1,):
        refusal = f"its features are on axis {module.axis}, not on the last one"
    return Norm(shapes, module.epsilon, estimator, dtype, refusal)


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
        kinds = [kind for each, kind in self.kinds.items() if isinstance(module, each)]
        is_norm = isinstance(module, self.norm_types)
        if not kinds and not is_norm:
            return call(*args, **kwargs)
        x, args, kwargs = marked_input(args, kwargs, f"{path}:in")
        variables = self.variables_of(module)
        for name, value in variables.items():
            mark(value, f"{path}:{name}")
        shapes = {name: jnp.shape(value) for name, value in variables.items()}
        y = mark(call(*args, **kwargs), f"{path}:out")
        if is_norm:
            train, update = self.modes_of(module, args, kwargs)
            masked = any(kwargs.get(each) is not None for each in ("mask", "weights"))
            self.norms[path] = describe_norm(
                module,
                type(module) in self.norm_types,
                shapes,
                x.ndim,
                y.dtype,
                train=train,
                update=update,
                masked=masked,
            )
        else:
            exact = type(module) in self.kinds
            self.layers[path] = describe_layer(module, kinds[0], exact, shapes)
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
        refusal = norms[norm].refusal or _usage(flow, norm, norms[norm].shapes)
        if refusal:
            return Kept(norm, refusal)
        before, why_not_before = _layer_before(flow, layers, norm, norms[norm])
        if before:
            return Fold(norm, before, behind=True)
        after, why_not_after = _layer_after(flow, layers, norm, norms[norm])
        if after:
            return Fold(norm, after, behind=False)
        return Kept(norm, f"{why_not_before}; and {why_not_after}")

    return Report(tuple(decide(norm) for norm in norms))


def _layer_before(
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: Norm
) -> tuple[str, str]:
    """The layer whose output the norm normalises, or "", and why there is none."""
    source = flow.sources[f"{norm}:in"]
    path, _, end = (source.mark or "").rpartition(":")
    if end != "out":
        return "", f"it normalises what {source.made_by} gives"
    if path not in layers:
        return "", f"it normalises the output of {path}"
    layer = layers[path]
    features = layer.shapes["kernel"][layer.layout.index("O")]
    refusal = _refusal(flow, layer, path, found, features)
    others = set(flow.uses[f"{path}:out"]) - {f"{norm}:in"}
    if not refusal and others:
        refusal = f"the output of {path} also goes to {_list(others)}"
    return "" if refusal else path, refusal


def _layer_after(
    flow: Dataflow, layers: Mapping[str, Layer], norm: str, found: Norm
) -> tuple[str, str]:
    """The layer that its output goes into, or "", and why there is none."""
    uses = flow.uses[f"{norm}:out"]
    paths = [each.removesuffix(":in") for each in uses if each.endswith(":in")]
    if len(uses) != 1 or not paths or paths[0] not in layers:
        return "", f"its output goes to {_list(set(uses))}"
    path = paths[0]
    layer = layers[path]
    if layer.fills:
        return "", f"{path} behind it pads with zeros, or is transposed"
    features = layer.shapes["kernel"][layer.layout.index("I")] * layer.groups
    refusal = _refusal(flow, layer, path, found, features)
    return "" if refusal else path, refusal


def _refusal(flow: Dataflow, layer: Layer, path: str, norm: Norm, features: int) -> str:
    """Why a norm may not be folded into so many features of a layer; "" if it may."""
    refusal = layer.refusal or _usage(flow, path, layer.shapes, once=True)
    if refusal:
        return f"{path} {refusal}"
    if norm.shapes["mean"] != (features,):
        return f"{path} has {features} features, but it has {norm.shapes['mean']}"
    return ""


def _usage(
    flow: Dataflow, path: str, shapes: Mapping[str, tuple[int, ...]], once: bool = False
) -> str:
    """Why variables may not be changed for one call of a module; "" if they may.

    They have to be inputs of the program as they are; and, if so asked, of no other use.
    """
    calls = flow.marked[f"{path}:in"]
    if calls != 1:
        return f"is called {calls} times"
    for name, shape in shapes.items():
        stored = flow.sources[f"{path}:{name}"].stored
        if stored is None or flow.input_shapes[stored] != shape:
            return f"does not use its {name} as it is stored"
        # By the mark, and by the module.
        if once and len(flow.input_uses[stored]) > 2:
            return f"shares its {name}"
    return ""


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
        current = changed.get(each.layer, arrays[each.layer])
        folding = fold_output if each.behind else fold_input
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


def _affine(norm: Norm, arrays: Arrays) -> Affine:
    """What the norm does to each feature."""
    mean = arrays["mean"]
    like = state_like(norm.estimator, mean.shape, mean.dtype)
    state = unnamed({name: arrays[name] for name in named(like)}, like)
    return as_affine(
        state,
        arrays.get("scale"),
        arrays.get("bias"),
        epsilon=norm.epsilon,
        estimator=norm.estimator,
    )


def _is_finite(array: Array) -> bool:
    """Whether all of it is, or that is not known yet."""
    return isinstance(array, Tracer) or bool(jnp.isfinite(array).all())
