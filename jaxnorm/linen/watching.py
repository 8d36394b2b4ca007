"""Intercepts the calls of the modules of a Linen model."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn

from jaxnorm.model.dataflow import Dataflow, dataflow, part

# `around(path, module, call, args, kwargs)` replaces `call(*args, **kwargs)`.
Around = Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def watching(around: Around) -> AbstractContextManager[None]:
    """Returns a context in which every Linen module is called through `around`.

    The path is the path of the module's variables, joined by "/".
    """

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        return around("/".join(context.module.path), context.module, call, args, kwargs)

    return nn.intercept_methods(interceptor)


def traced(
    around: Around,
    model: nn.Module,
    variables: Mapping[str, Any],
    *args: Any,
    **kwargs: Any,
) -> Dataflow:
    """Returns the dataflow of a model; `around` wraps its modules' calls and marks arrays.

    Only the shapes and dtypes of arrays in the arguments matter.
    """
    arrays, whole = part((args, kwargs))

    def run(variables: Any, arrays: list[Any]) -> Any:
        args, kwargs = whole(arrays)
        with watching(around):
            return model.apply(variables, *args, **kwargs)

    return dataflow(run, variables, arrays)
