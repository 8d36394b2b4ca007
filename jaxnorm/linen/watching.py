"""What goes into the modules of a Linen model, and what comes out of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax

from jaxnorm.dataflow import Dataflow, dataflow, is_array

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
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if is_array(leaf)}

    def run(variables: Any, arrays: dict[int, Any]) -> Any:
        filled = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(structure, filled)
        with watching(around):
            return model.apply(variables, *args, **kwargs)

    return dataflow(run, variables, arrays)
