"""Describes and marks the layers and norms of a model while it is called."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnorm.model.dataflow import mark
from jaxnorm.model.folding.affine import pads_with_zeros
from jaxnorm.model.spec import Norms, NormSpec, arguments_of
from jaxnorm.statistics.estimator import Estimator


class Layer(NamedTuple):
    """A dense or conv layer of a model.

    Attributes:
      shapes: shapes of its variables, by name.
      ends: shapes of its input, "in", and its output, "out".
      layout: layout of its kernel, as for `fold_output`.
      groups: number of groups of features, as for `fold_output`.
      fills: why no norm before it can be folded into it; "" if one can.
      refusal: why no norm can be folded into it; "" if one can.
    """

    shapes: dict[str, tuple[int, ...]]
    ends: dict[str, tuple[int, ...]]
    layout: str
    groups: int
    fills: str
    refusal: str


class RunningNorm(NamedTuple):
    """A norm with running statistics.

    Attributes:
      shapes: shapes of its variables, by name.
      ends: shapes of its input, "in", and its output, "out".
      epsilon: added to the variance.
      estimator: estimator of the statistics.
      dtype: dtype of its output.
      refusal: why it cannot be folded into any layer; "" if it can.
    """

    shapes: dict[str, tuple[int, ...]]
    ends: dict[str, tuple[int, ...]]
    epsilon: float
    estimator: Estimator[Any]
    dtype: Any
    refusal: str


def describe_layer(
    module: Any, kind: str, exact: bool, shapes: Any, ends: Any, dtype: Any
) -> Layer:
    """Describes a "dense", "conv" or "transposed" module by its flax attributes.

    `exact` is False if its type is a subclass of flax's.
    """
    kernel = shapes.get("kernel", ())
    refusal = fills = ""
    if not exact:
        refusal = f"is a {type(module).__name__}, which may use its kernel differently"
    elif kind == "dense" and (len(kernel) != 2 or _others_than_last(module)):
        refusal = f"has a kernel of shape {kernel}, or contracts axes other than the last"
    elif getattr(module, "mask", None) is not None:
        refusal = "masks its kernel"
    elif "bias" in shapes and not module.use_bias:
        refusal = "shares its scope with a bias that is not its own"
    elif not _is_plain(module):
        refusal = "has a custom dot_general, conv_general_dilated or promote_dtype"
    elif not jnp.issubdtype(dtype, jnp.floating):
        refusal = f"outputs {dtype}"
    if kind == "transposed":
        fills = "is transposed"
    elif kind == "conv" and pads_with_zeros(module.padding, kernel[:-2]):
        fills = "pads with zeros"
    elif (np.ravel(getattr(module, "input_dilation", None) or 1) != 1).any():
        fills = "dilates its input with zeros"
    elif jnp.finfo(dtype).bits < 32:
        fills = f"computes in {dtype}, which would lose precision without centring"
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
    """Whether a layer multiplies and promotes dtypes with flax's default functions."""
    own = {"dot_general": lax.dot_general, "conv_general_dilated": lax.conv_general_dilated}
    return all(
        getattr(module, name, None) in (None, function)
        and getattr(module, f"{name}_cls", None) is None
        for name, function in own.items()
    ) and module.promote_dtype.__module__.startswith("flax.")


def describe_norm(
    module: Any,
    spec: NormSpec,
    shapes: Any,
    ends: Any,
    dtype: Any,
    *,
    exact: bool,
    masked: bool,
    conditional: bool,
) -> RunningNorm:
    """Describes a norm with running statistics, as called in a model.

    `exact` is False if its type only inherits its description from another class.
    """
    assert spec.estimator is not None
    refusal = ""
    if "mean" not in shapes:
        raise ValueError(
            f"a {type(module).__name__} of {ends['in'][-1]} features has no running "
            "statistics; pass variables that include them in 'batch_stats'."
        )
    if spec.train:
        refusal = "it normalises with the batch, not with running statistics"
    elif spec.update:
        refusal = "it updates its statistics"
    elif masked:
        refusal = "it is called with a mask or weights"
    elif conditional:
        refusal = "it is called with a scale or bias"
    elif not exact:
        refusal = f"it is a {type(module).__name__}, whose arithmetic may differ"
    elif not spec.affine:
        refusal = f"it is a {type(module).__name__}, which does more than scale and shift"
    elif spec.feature_axes != (len(ends["in"]) - 1,):
        refusal = f"its feature axes are {spec.feature_axes}, not the last axis alone"
    return RunningNorm(shapes, ends, spec.epsilon, spec.estimator, dtype, refusal)


class Watcher:
    """Describes and marks the layers and norms of a model while it is called.

    Attributes:
      layers: the layers found, by path.
      norms: the norms with running statistics found, by path.
    """

    def __init__(
        self,
        layers: Mapping[type, str],
        norms: Norms,
        variables_of: Callable[[Any], dict[str, Array]],
    ):
        """Creates a watcher for the layers and norms of a framework.

        `variables_of(module)` returns the variables of a module by name.
        """
        self.kinds, self.norm_types, self.variables_of = layers, norms, variables_of
        self.layers: dict[str, Layer] = {}
        self.norms: dict[str, RunningNorm] = {}

    def __call__(
        self, path: str, module: Any, call: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a module; for a layer or norm, marks its input, output and variables."""
        # type() distinguishes a norm from a stand-in that overrides `__class__`.
        kinds = [k for each, k in self.kinds.items() if issubclass(type(module), each)]
        is_norm = module in self.norm_types
        if not kinds and not is_norm:
            return call(*args, **kwargs)
        x, given = arguments_of(module, args, kwargs)
        spec = self.norm_types.spec(module, x, given) if is_norm else None
        if not kinds and (spec is None or spec.estimator is None):
            return call(*args, **kwargs)
        x, args, kwargs = marked_input(args, kwargs, x, f"{path}:in")
        variables = self.variables_of(module)
        for name, value in variables.items():
            mark(value, f"{path}:{name}")
        y = mark(call(*args, **kwargs), f"{path}:out")
        shapes = {name: jnp.shape(value) for name, value in variables.items()}
        ends = {"in": x.shape, "out": y.shape}
        if spec is not None:
            self.norms[path] = describe_norm(
                module,
                spec,
                shapes,
                ends,
                y.dtype,
                exact=self.norm_types.is_exact(module),
                masked=is_given(given, "mask", "weights"),
                conditional=is_given(given, "scale", "bias"),
            )
        else:
            exact = type(module) in self.kinds
            self.layers[path] = describe_layer(
                module, kinds[0], exact, shapes, ends, y.dtype
            )
        return y


def is_given(call: Mapping[str, Any], *names: str) -> bool:
    """Whether any of these arguments of a call is given and not None."""
    return any(call.get(each) is not None for each in names)


def marked_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], x: Any, key: str
) -> tuple[Array, tuple[Any, ...], dict[str, Any]]:
    """Marks the input x of a module; returns it, and args and kwargs that contain it."""
    marked = mark(x, key)
    if args:
        return marked, (marked, *args[1:]), kwargs
    name = next(each for each, value in kwargs.items() if value is x)
    return marked, args, {**kwargs, name: marked}
