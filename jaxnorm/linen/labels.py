"""What the parameters of a Linen model are to an optimiser."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxnorm.linen.modules import LAYERS, NORMS
from jaxnorm.linen.watching import traced
from jaxnorm.model.labels import Labeller


def parameter_labels(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """For each parameter whether it is a norm's, cancelled by one, or a weight.

    The bias of a dense or conv layer is cancelled where all that the layer gives goes into
    batch norms that train, or instance norms: these subtract the mean, the bias with it, so
    that its gradient is 0. (`use_bias=False` saves it.) Only what is called counts: a norm
    that this call leaves out is labelled as weights are; so are norms of other libraries.
    An axis_name wants to be mapped: give the model made without it, whose labels are the
    same.

    Args:
      model: with norms of jaxnorm or flax.
      variables: of the model; only shapes and dtypes count.
      args: what `model.apply` takes, besides, to train; only shapes and dtypes of arrays
        count.
      kwargs: likewise, such as train=True.

    Returns:
      The tree of parameters with "norm", "cancelled" or "weight" in place of each, as
      `optax.multi_transform` takes it. `jaxnorm.decay_mask` makes a mask of it.

    >>> import jaxnorm, jaxnorm.linen as jn, optax
    >>> model = nn.Sequential([nn.Dense(2), jn.BatchNorm(train=True)])
    >>> x = jnp.ones((4, 3))
    >>> variables = model.init(jax.random.key(0), x)
    >>> labels = parameter_labels(model, variables, x)
    >>> labels["layers_0"]
    {'bias': 'cancelled', 'kernel': 'weight'}
    >>> optimizer = optax.adamw(1e-3, mask=jaxnorm.decay_mask(labels))
    """
    labeller = Labeller(tuple(LAYERS), NORMS)
    # Norms that train could not be called without.
    kwargs = {"mutable": ["batch_stats"], **kwargs}
    flow = traced(labeller, model, variables, *args, **kwargs)
    return labeller.labels(flow, variables.get("params", {}))
