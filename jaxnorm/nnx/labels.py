"""What the parameters of an NNX model are to an optimiser."""

from typing import Any

import jax
from flax import nnx

from jaxnorm.model.labels import Labeller
from jaxnorm.nnx.modules import LAYERS, NORMS, is_layer_or_norm
from jaxnorm.nnx.watching import traced


def parameter_labels(model: nnx.Module, *args: Any, **kwargs: Any) -> Any:
    """For each parameter whether it is a norm's, cancelled by one, or a weight.

    See `jaxnorm.linen.parameter_labels` for what that means.

    Args:
      model: with norms of jaxnorm or flax, set to train. It is not changed.
      args: what the model is called with; only shapes and dtypes of arrays count.
      kwargs: likewise.

    Returns:
      `nnx.state(model, nnx.Param)` with "norm", "cancelled" or "weight" in place of each
      `nnx.Param`, as `optax.multi_transform` takes it for an `nnx.Optimizer`.
      `jaxnorm.decay_mask` makes a mask of it.

    >>> import jaxnorm.nnx as jx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), jx.BatchNorm(2, rngs=rngs))
    >>> labels = parameter_labels(model, jnp.ones((4, 3)))
    >>> labels["layers"][0]["bias"]
    'cancelled'
    """
    labeller = Labeller(tuple(LAYERS), NORMS)
    flow, _ = traced(labeller, model, is_layer_or_norm, *args, **kwargs)
    # Without variables around them: nnx.Optimizer passes arrays without them to optax.
    parameters = jax.tree.map(
        lambda variable: variable[...],
        nnx.state(model, nnx.Param),
        is_leaf=lambda each: isinstance(each, nnx.Variable),
    )
    return labeller.labels(flow, parameters)
