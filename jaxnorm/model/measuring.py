"""The moments of what a norm of a model is called on, measured from outside the norm."""

from collections.abc import Mapping
from typing import Any

from jaxnorm._core.axes import complement
from jaxnorm._core.dtypes import as_floating
from jaxnorm._core.measurement import Samples, measure_samples
from jaxnorm._core.moments import Moments, synchronize
from jaxnorm._core.weights import as_weights, one_weighting
from jaxnorm.model.spec import Norms, arguments_of


def moments_of_input(
    norms: Norms, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Moments | None:
    """Returns the moments of each feature over all other axes, or None.

    Returns None if the module is not a norm with running statistics. Uses the mask or
    weights of the call, and merges over the mapped axes that the module names.
    """
    if module not in norms:
        return None
    x, call = arguments_of(module, args, kwargs)
    spec = norms.spec(module, x, call)
    if spec.estimator is None:
        return None
    x = as_floating(x)
    weights = one_weighting(call.get("mask"), call.get("weights"))
    weights = None if weights is None else as_weights(weights, x)
    samples = Samples(complement(spec.feature_axes, x.ndim))
    axis_name = getattr(module, "axis_name", None)
    groups = getattr(module, "axis_index_groups", None) if axis_name else None
    return synchronize(measure_samples(x, weights, samples), axis_name, groups)
