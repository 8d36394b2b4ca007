"""Labels parameters as a norm's, as cancelled by a norm, or as weights."""

from typing import Any

import jax
import numpy as np

from jaxnorm.model.dataflow import Dataflow, mark
from jaxnorm.model.modules import marked_input
from jaxnorm.model.spec import Norms, NormSpec, arguments_of


def decay_mask(labels: Any) -> Any:
    """Selects the parameters to decay: all except norm parameters and cancelled biases.

    Args:
      labels: the result of `jaxnorm.linen.parameter_labels` or
        `jaxnorm.nnx.parameter_labels`.

    Returns:
      The same tree with booleans, for `optax.adamw(rate, mask=...)`.

    >>> decay_mask({"conv": {"kernel": "weight", "bias": "cancelled"}})
    {'conv': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(lambda label: label == "weight", labels)


class Labeller:
    """Records the norms of a model and the layers before them while it is called."""

    def __init__(self, layers: tuple[type, ...], norms: Norms):
        """Creates a labeller for the layers and norms of a framework."""
        self.layer_types, self.norm_types = layers, norms
        self.layers: set[str] = set()
        self.norms: set[str] = set()
        self.ranks: dict[str, int] = {}  # of each marked array, as the module sees it

    def __call__(
        self, path: str, module: Any, call: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a module; marks the output of a layer and the input of a centring norm."""
        if type(module) in self.layer_types and _has_plain_bias(module):
            self.layers.add(path)
            y = mark(call(*args, **kwargs), f"{path}:out")
            self.ranks[f"{path}:out"] = y.ndim
            return y
        if module not in self.norm_types:
            return call(*args, **kwargs)
        self.norms.add(path)
        x, given = arguments_of(module, args, kwargs)
        if _cancels_bias(self.norm_types.spec(module, x, given), x.shape):
            x, args, kwargs = marked_input(args, kwargs, x, f"{path}:centred")
            self.ranks[f"{path}:centred"] = x.ndim
        return call(*args, **kwargs)

    def labels(self, flow: Dataflow, parameters: Any) -> Any:
        """Returns the tree of parameters with their labels in place of the arrays."""

        def mapped(key: str) -> int:
            return len(flow.shapes[key]) - self.ranks[key]

        def is_cancelled(layer: str) -> bool:
            uses = flow.uses[f"{layer}:out"]
            # With one bias per mapped index, a norm over all indices does not cancel it.
            return bool(uses) and all(
                each.endswith(":centred") and mapped(f"{layer}:out") <= mapped(each)
                for each in uses
            )

        cancelled = set(filter(is_cancelled, self.layers))

        def label(path: Any, _: Any) -> str:
            # Keys without `.key` belong to the box that holds the parameter.
            *module, name = (key.key for key in path if hasattr(key, "key"))
            where = "/".join(map(str, module))
            if where in self.norms:
                return "norm"
            return "cancelled" if name == "bias" and where in cancelled else "weight"

        return jax.tree.map_with_path(label, parameters)


def _cancels_bias(spec: NormSpec, shape: tuple[int, ...]) -> bool:
    """Whether a norm cancels a bias, which varies along the last axis only.

    A norm that normalises with running statistics does not.
    """
    last = len(shape) - 1
    alone = last not in spec.reduction_axes and spec.num_groups in (None, shape[last])
    return spec.centred and spec.train is not False and alone


def _has_plain_bias(layer: Any) -> bool:
    """Whether the bias of a layer varies along the last axis of its output only."""
    features = getattr(layer, "features", getattr(layer, "out_features", 1))
    batched = getattr(layer, "batch_dims", ()) or getattr(layer, "batch_axis", ())
    return np.size(features) == 1 and not batched
