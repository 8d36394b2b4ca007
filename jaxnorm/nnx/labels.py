"""Labels the parameters of an NNX model, for optimisers."""

from typing import Any

import jax
from flax import nnx

from jaxnorm.model.labels import Labeller
from jaxnorm.nnx.modules import LAYERS, NORMS, is_layer_or_norm
from jaxnorm.nnx.watching import traced


def parameter_labels(model: nnx.Module, *args: Any, **kwargs: Any) -> Any:
    """Labels each parameter as a norm's, as cancelled by a norm, or as a weight.

    See `jaxnorm.linen.parameter_labels` for what the labels mean.

    Args:
      model: a model with norms of jaxnorm or flax, in training mode. It is not changed.
      args: the arguments that the model is called with; only the shapes and dtypes of
        arrays matter.
      kwargs: keyword arguments of the call, as for `args`.

    Returns:
      `nnx.state(model, nnx.Param)` with "norm", "cancelled" or "weight" in place of each
      `nnx.Param`, for `optax.multi_transform` in an `nnx.Optimizer`. `jaxnorm.decay_mask`
      turns it into a mask.

    >>> import jaxnorm.nnx as jx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), jx.BatchNorm(2, rngs=rngs))
    >>> labels = parameter_labels(model, jnp.ones((4, 3)))
    >>> labels["layers"][0]["bias"]
    'cancelled'
    """
    labeller = Labeller(tuple(LAYERS), NORMS)
    flow, _ = traced(labeller, model, is_layer_or_norm, *args, **kwargs)
    # Like nnx.Optimizer, which passes bare arrays rather than nnx.Variables to optax.
    parameters = jax.tree.map(
        lambda variable: variable[...],
        nnx.state(model, nnx.Param),
        is_leaf=lambda each: isinstance(each, nnx.Variable),
    )
    return labeller.labels(flow, parameters)
