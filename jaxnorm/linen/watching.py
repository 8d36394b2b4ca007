"""What goes into the modules of a Linen model, and what comes out of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn

from jaxnorm.model.dataflow import Dataflow, dataflow, part

# `around(path, module, call, args, kwargs)` stands in for `call(*args, **kwargs)`.
Around = Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def watching(around: Around) -> AbstractContextManager[None]:
    """A context in which every module of a Linen model is called through `around`.

    The path is that of the module's variables, its parts joined by "/".
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
    """The dataflow of a model whose modules are called through `around`, which marks it.

    Of the arguments only the shapes and dtypes of arrays count.
    """
    arrays, whole = part((args, kwargs))

    def run(variables: Any, arrays: list[Any]) -> Any:
        args, kwargs = whole(arrays)
        with watching(around):
            return model.apply(variables, *args, **kwargs)

    return dataflow(run, variables, arrays)
