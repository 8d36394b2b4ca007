"""Labels the parameters of a Linen model, for optimisers."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxnorm.linen.modules import LAYERS, NORMS
from jaxnorm.linen.watching import traced
from jaxnorm.model.labels import Labeller


def parameter_labels(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """Labels each parameter as a norm's, as cancelled by a norm, or as a weight.

    The bias of a dense or conv layer is cancelled if the layer's output is used only by
    batch norms in training or by instance norms: they subtract the mean and with it the
    bias, so its gradient is 0. (`use_bias=False` avoids such a bias.) Norms are recognised
    only if this call reaches them: the parameters of other norms, and of custom norms
    without a `norm_spec`, are labelled "weight". A norm with an axis_name needs that axis
    to be mapped; label the same model built without it, which has the same labels.

    Args:
      model: a model with norms of jaxnorm or flax.
      variables: its variables; only their shapes and dtypes matter.
      args: further arguments of `model.apply` in training, such as the inputs; only the
        shapes and dtypes of arrays matter.
      kwargs: keyword arguments of `model.apply`, such as train=True.

    Returns:
      The tree of parameters with "norm", "cancelled" or "weight" in place of each, for
      `optax.multi_transform`. `jaxnorm.decay_mask` turns it into a mask.

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
    # Norms in training need mutable statistics.
    kwargs = {"mutable": ["batch_stats"], **kwargs}
    flow = traced(labeller, model, variables, *args, **kwargs)
    return labeller.labels(flow, variables.get("params", {}))
