"""The layers and the norms that an NNX model calls, for those that pair them."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array

from jaxnorm.dataflow import Dataflow, dataflow
from jaxnorm.mode import resolve_train, resolve_update
from jaxnorm.nnx.batch import BatchNorm
from jaxnorm.nnx.batch_renorm import BatchRenorm
from jaxnorm.nnx.watching import Watched, watched
from jaxnorm.pairs import Watcher

LAYERS = {
    nnx.Linear: "dense",
    nnx.LinearGeneral: "dense",
    nnx.Conv: "conv",
    nnx.ConvTranspose: "transposed",
}
NORMS = (BatchNorm, BatchRenorm, nnx.BatchNorm)


def watch(
    model: nnx.Module, *args: Any, **kwargs: Any
) -> tuple[Watcher, Dataflow, dict[str, Any]]:
    """What a model calls, how that is connected, and the modules by their paths."""
    watcher = Watcher(LAYERS, NORMS, variables_of, modes_of)
    copy = watched(model, (*LAYERS, *NORMS), watcher)
    graph, state = nnx.split(copy)
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")}

    def run(state: Any, arrays: dict[int, Any]) -> Any:
        filled = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(structure, filled)
        return nnx.merge(graph, state)(*args, **kwargs)

    flow = dataflow(run, state, arrays)
    modules = [each for _, each in nnx.iter_modules(copy) if isinstance(each, Watched)]
    return watcher, flow, {each.path: each.module for each in modules}


def variables_of(module: Any) -> dict[str, Array]:
    """The values of a module's variables, by their names."""
    return {
        name: each[...]
        for name, each in vars(module).items()
        if isinstance(each, nnx.Variable)
    }


def modes_of(module: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[bool, bool]:
    """Whether a norm, called so, normalises with the batch, and whether it updates.

    What is said in the call goes before what the module was set to.
    """
    average = args[1] if len(args) > 1 else kwargs.get("use_running_average")
    train = kwargs.get("train")
    if average is None and train is None:
        average = module.use_running_average
    train = resolve_train(train=train, use_running_average=average)
    update = kwargs.get("update")
    if update is None:
        update = getattr(module, "update", None)
    return train, resolve_update(train, update=update)
