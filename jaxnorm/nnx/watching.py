"""Intercepts the calls of the modules of an NNX model."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxnorm.model.dataflow import Dataflow, dataflow, part

# `around(path, module, call, args, kwargs)` replaces `call(*args, **kwargs)`.
Around = Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Watched(nnx.Module):
    """Stands in for a module and calls it through `around`; `isinstance` sees its class."""

    def __init__(self, path: str, module: nnx.Module, around: Around):
        self.path = path
        self.module = module
        self.around = around

    @property
    def __class__(self) -> type:  # pyright: ignore
        """The module's class, for models that check the types of their layers."""
        return type(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module through `around`."""
        return self.around(self.path, self.module, self.module, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Returns the module's attribute."""
        if name == "module" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.module, name)


def replaced(model: Any, replacement: Callable[[str, Any], Any]) -> Any:
    """Returns a copy of the model whose modules are `replacement(path, module)`.

    The path is the path of the module's variables, joined by "/". The copy and the model
    share nothing, so changing one does not change the other.
    """

    def at(path: tuple[Any, ...], node: Any) -> Any:
        is_module = isinstance(node, nnx.Module)
        return replacement("/".join(map(str, path)), node) if is_module else node

    return nnx.recursive_map(at, nnx.clone(model))


def watched(model: Any, wanted: Callable[[type], bool], around: Around) -> Any:
    """Returns a copy of the model whose wanted modules are called through `around`."""
    return replaced(
        model,
        lambda path, module: (
            Watched(path, module, around) if wanted(type(module)) else module
        ),
    )


def traced(
    around: Around,
    model: nnx.Module,
    wanted: Callable[[type], bool],
    *args: Any,
    **kwargs: Any,
) -> tuple[Dataflow, dict[str, Any]]:
    """Returns the dataflow of a model, and the wanted modules of a copy of it, by path.

    `around` wraps the calls of these modules and marks arrays. Only the shapes and dtypes
    of arrays in the arguments matter.
    """
    copy = watched(model, wanted, around)
    graph, state = nnx.split(copy)
    arrays, whole = part((args, kwargs))

    def run(state: Any, arrays: list[Any]) -> Any:
        args, kwargs = whole(arrays)
        before = jax.tree.leaves(state)
        merged = nnx.merge(graph, state)
        output = merged(*args, **kwargs)
        # Values that the call wrote into the model are outputs, too.
        after = jax.tree.leaves(nnx.state(merged))
        return output, [leaf for leaf in after if all(leaf is not old for old in before)]

    modules = [each for _, each in nnx.iter_modules(copy) if type(each) is Watched]
    return dataflow(run, state, arrays), {each.path: each.module for each in modules}
