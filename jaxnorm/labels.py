"""What a model's parameters are to an optimiser: a norm's, cancelled by one, or weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnorm.axes import canonical_axes
from jaxnorm.callees import marked_input
from jaxnorm.dataflow import Dataflow, mark


def decay_mask(labels: Any) -> Any:
    """The parameters that weight decay is for: neither those of norms nor cancelled biases.

    Args:
      labels: as `jaxnorm.linen.parameter_labels` or `jaxnorm.nnx.parameter_labels` gives
        them.

    Returns:
      The same tree with booleans, as `optax.adamw(rate, mask=...)` takes it.

    >>> decay_mask({"conv": {"kernel": "weight", "bias": "cancelled"}})
    {'conv': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(lambda label: label == "weight", labels)


class Labeller:
    """Notes the norms of a model, and the layers before them, as it is called around it."""

    def __init__(
        self,
        layers: tuple[type, ...],
        batch: tuple[type, ...],
        instance: tuple[type, ...],
        others: tuple[type, ...],
        modes_of: Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[bool, bool]],
    ):
        """For a framework: its layers, its norms, and whether a batch norm trains."""
        self.layer_types, self.norm_types = layers, (*batch, *instance, *others)
        self.batch, self.instance, self.modes_of = batch, instance, modes_of
        self.layers: set[str] = set()
        self.norms: set[str] = set()

    def __call__(
        self, path: str, module: Any, call: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Calls a module, and marks what a layer gives and what a norm centres."""
        if isinstance(module, self.layer_types):
            self.layers.add(path)
            return mark(call(*args, **kwargs), f"{path}:out")
        if not isinstance(module, self.norm_types):
            return call(*args, **kwargs)
        self.norms.add(path)
        if self._cancels(module, args, kwargs):
            _, args, kwargs = marked_input(args, kwargs, f"{path}:centred")
        return call(*args, **kwargs)

    def _cancels(self, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a norm takes away what is the same along all axes but the last: a bias.

        One that normalises with running statistics does not.
        """
        trains = isinstance(norm, self.batch) and self.modes_of(norm, args, kwargs)[0]
        if not trains and not isinstance(norm, self.instance):
            return False
        rank = jnp.ndim(args[0] if args else kwargs["x"])
        return rank - 1 in canonical_axes(norm.axis if trains else norm.feature_axes, rank)

    def labels(self, flow: Dataflow, parameters: Any) -> Any:
        """The tree of parameters, with "norm", "cancelled" or "weight" in their place."""
        uses = {path: flow.uses[f"{path}:out"] for path in self.layers}
        cancelled = {
            path
            for path, of in uses.items()
            if of and all(each.endswith(":centred") for each in of)
        }

        def label(path: Any, _: Any) -> str:
            # What is below is the box that it is in.
            *module, name = (key.key for key in path if hasattr(key, "key"))
            where = "/".join(map(str, module))
            if where in self.norms:
                return "norm"
            return "cancelled" if name == "bias" and where in cancelled else "weight"

        return jax.tree.map_with_path(label, parameters)
