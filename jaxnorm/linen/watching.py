"""Intercepts the calls of the modules of a Linen model."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class WatchedModel:
    """A Linen model whose modules are called in another way; it holds no variables.

    Attributes:
      model: the original model.
    """

    model: nn.Module

    def running(self, whole: bool) -> AbstractContextManager[None]:
        """Returns the context in which the model runs; `whole` unless by another method."""
        raise NotImplementedError

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Applies the model, as `model.apply` does."""
        with self.running(kwargs.get("method") is None):
            return self.model.apply(variables, *args, **kwargs)

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns initial variables, as `model.init` does; `nn.tabulate` uses it."""
        return self.init_with_output(rngs, *args, **kwargs)[1]

    def init_with_output(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the output and initial variables, as `model.init_with_output` does."""
        with self.running(kwargs.get("method") is None):
            return self.model.init_with_output(rngs, *args, **kwargs)


def check_model(model: Any) -> None:
    """Raises a TypeError unless it is a Linen module, and not a folded or frozen one."""
    if not isinstance(model, nn.Module):
        mend = (
            "pass the original one, which is its attribute `model`."
            if isinstance(model, WatchedModel)
            else "pass a flax.linen.Module."
        )
        raise TypeError(
            f"model is a {type(model).__name__}, but a Linen module is expected; {mend}"
        )


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
