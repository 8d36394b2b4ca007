"""What goes into the modules of an NNX model, and what comes out of them."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxnorm.model.dataflow import Dataflow, dataflow, part

# `around(path, module, call, args, kwargs)` stands in for `call(*args, **kwargs)`.
Around = Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Watched(nnx.Module):
    """A module in whose place this one is called; `isinstance` tells no difference."""

    def __init__(self, path: str, module: nnx.Module, around: Around):
        self.path = path
        self.module = module
        self.around = around

    @property
    def __class__(self) -> type:  # pyright: ignore
        """As models ask for it, that go by the kinds of their layers."""
        return type(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `around` makes of the call."""
        return self.around(self.path, self.module, self.module, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """What else is asked for is the module's."""
        if name == "module" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.module, name)


def replaced(model: Any, replacement: Callable[[str, Any], Any]) -> Any:
    """A copy of the model, whose modules are `replacement(path, module)`.

    The path is that of the module's variables, its parts joined by "/". The copy shares
    nothing with the model: what changes one changes nothing of the other.
    """

    def at(path: tuple[Any, ...], node: Any) -> Any:
        is_module = isinstance(node, nnx.Module)
        return replacement("/".join(map(str, path)), node) if is_module else node

    return nnx.recursive_map(at, nnx.clone(model))


def watched(model: Any, wanted: Callable[[type], bool], around: Around) -> Any:
    """A copy of the model, whose wanted modules are called through `around`."""
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
    """The dataflow of a model whose modules are called through `around`, which marks it.

    And the modules of these kinds, in a copy of it, by their paths. Of the arguments only
    the shapes and dtypes of arrays count.
    """
    copy = watched(model, wanted, around)
    graph, state = nnx.split(copy)
    arrays, whole = part((args, kwargs))

    def run(state: Any, arrays: list[Any]) -> Any:
        args, kwargs = whole(arrays)
        before = jax.tree.leaves(state)
        merged = nnx.merge(graph, state)
        output = merged(*args, **kwargs)
        # What the call has written into the model has come out of it, too.
        after = jax.tree.leaves(nnx.state(merged))
        return output, [leaf for leaf in after if all(leaf is not old for old in before)]

    modules = [each for _, each in nnx.iter_modules(copy) if type(each) is Watched]
    return dataflow(run, state, arrays), {each.path: each.module for each in modules}
