"""Labels for parameters: a norm's, cancelled by a norm, or a weight."""

from typing import Any

import jax
import numpy as np

from jaxnorm.model.dataflow import Dataflow, mark
from jaxnorm.model.modules import marked_input
from jaxnorm.model.spec import Norms, NormSpec, arguments_of


def decay_mask(labels: Any) -> Any:
    """Selects the parameters to decay: neither those of norms nor cancelled biases.

    Args:
      labels: the result of `jaxnorm.linen.parameter_labels` or
        `jaxnorm.nnx.parameter_labels`.

    Returns:
      The same tree with booleans, as `optax.adamw(rate, mask=...)` takes it.

    >>> decay_mask({"conv": {"kernel": "weight", "bias": "cancelled"}})
    {'conv': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(lambda label: label == "weight", labels)


class Labeller:
    """Notes the norms of a model, and the layers before them, as it is called around it."""

    def __init__(self, layers: tuple[type, ...], norms: Norms):
        """Looks for the layers and norms of a framework."""
        self.layer_types, self.norm_types = layers, norms
        self.layers: set[str] = set()
        self.norms: set[str] = set()
        self.ranks: dict[str, int] = {}  # of what is marked, where the module saw it

    def __call__(
        self, path: str, module: Any, call: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a module, and marks what a layer returns and what a norm centres."""
        if type(module) in self.layer_types and _has_plain_bias(module):
            self.layers.add(path)
            y = mark(call(*args, **kwargs), f"{path}:out")
            self.ranks[f"{path}:out"] = y.ndim
            return y
        if module not in self.norm_types:
            return call(*args, **kwargs)
        self.norms.add(path)
        x, _ = arguments_of(module, args, kwargs)
        if _cancels_bias(self.norm_types.spec(module, args, kwargs), x.shape):
            x, args, kwargs = marked_input(module, args, kwargs, f"{path}:centred")
            self.ranks[f"{path}:centred"] = x.ndim
        return call(*args, **kwargs)

    def labels(self, flow: Dataflow, parameters: Any) -> Any:
        """The tree of parameters, with "norm", "cancelled" or "weight" in their place."""

        def mapped(key: str) -> int:
            return len(flow.shapes[key]) - self.ranks[key]

        def is_cancelled(layer: str) -> bool:
            uses = flow.uses[f"{layer}:out"]
            # A bias of each index, and a norm over all of these, are something else.
            return bool(uses) and all(
                each.endswith(":centred") and mapped(f"{layer}:out") <= mapped(each)
                for each in uses
            )

        cancelled = set(filter(is_cancelled, self.layers))

        def label(path: Any, _: Any) -> str:
            # What is below is the box that it is in.
            *module, name = (key.key for key in path if hasattr(key, "key"))
            where = "/".join(map(str, module))
            if where in self.norms:
                return "norm"
            return "cancelled" if name == "bias" and where in cancelled else "weight"

        return jax.tree.map_with_path(label, parameters)


def _cancels_bias(spec: NormSpec, shape: tuple[int, ...]) -> bool:
    """Whether a norm subtracts what is the same along all axes but the last: a bias.

    One that normalises with running statistics does not.
    """
    last = len(shape) - 1
    alone = last not in spec.reduction_axes and spec.num_groups in (None, shape[last])
    return spec.centred and spec.train is not False and alone


def _has_plain_bias(layer: Any) -> bool:
    """Whether its bias varies along the last axis of its output only."""
    features = getattr(layer, "features", getattr(layer, "out_features", 1))
    batched = getattr(layer, "batch_dims", ()) or getattr(layer, "batch_axis", ())
    return np.size(features) == 1 and not batched
