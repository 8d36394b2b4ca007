"""Folds the norms of an NNX model into its layers."""

import inspect
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxnorm._core.train_flags import resolve_train
from jaxnorm.model.folding.pairing import FoldReport, fold_pairs, pair
from jaxnorm.model.modules import Watcher, is_given
from jaxnorm.nnx.modes import modes_of
from jaxnorm.nnx.modules import LAYERS, NORMS, is_layer_or_norm, variables_of
from jaxnorm.nnx.watching import replaced, traced


class Folding(NamedTuple):
    """The result of `fold` for an NNX model.

    Attributes:
      model: a copy of the model, with `Folded` in place of each folded norm.
      report: which norms were folded, and why others were kept.
    """

    model: Any
    report: FoldReport


def fold(model: nnx.Module, *args: Any, **kwargs: Any) -> Folding:
    """Folds the batch norms of a trained model into the layers next to them.

    See `jaxnorm.linen.fold` for which norms are folded, and for the source.

    Args:
      model: a model with norms of jaxnorm or flax, after `model.eval()`. It is not changed.
      args: the arguments that the model is called with. Only the shapes and dtypes of
        arrays matter, so they may be `jax.ShapeDtypeStruct`s.
      kwargs: keyword arguments of the call, as for `args`.

    Returns:
      Folding(model, report), where model is a copy that shares nothing with the original.
      It accepts any arrays, but all other arguments must be the same as here, since a
      different flag may route arrays differently; this is not checked.

    Raises:
      ValueError: the model called no norm with running statistics.

    >>> import jaxnorm.nnx as jx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), jx.BatchNorm(2, rngs=rngs))
    >>> model.eval()
    >>> folded = fold(model, jax.ShapeDtypeStruct((1, 3), "float32"))
    >>> print(folded.report)
    1 of 1 norms folded:
    layers/1  folded into layers/0, which comes before it
    """
    watcher = Watcher(LAYERS, NORMS, variables_of)
    flow, modules = traced(watcher, model, is_layer_or_norm, *args, **kwargs)
    if not watcher.norms:
        raise ValueError(
            f"{type(model).__name__} called no batch norm of jaxnorm.nnx or flax.nnx; "
            "there is nothing to fold."
        )
    arrays = {path: variables_of(modules[path]) for path in modules}
    found = pair(flow, watcher.layers, watcher.norms)
    report, changed = fold_pairs(found, watcher.layers, watcher.norms, arrays)
    gone = {each.norm: watcher.norms[each.norm].dtype for each in report.folded}

    def replacement(path: str, module: Any) -> Any:
        if path in gone and module in NORMS:
            return Folded(path, type(module), gone[path])
        if path in changed and isinstance(module, tuple(LAYERS)):
            # Bypass the variables' hooks, which are meant for training.
            module.kernel.set_raw_value(changed[path]["kernel"])
            if module.bias is None:
                module.use_bias, module.bias = True, nnx.Param(changed[path]["bias"])
            else:
                module.bias.set_raw_value(changed[path]["bias"])
        return module

    return Folding(replaced(model, replacement), report)


class Folded(nnx.Module):
    """Stands in for a norm that was folded into a layer; changes only the dtype of x."""

    def __init__(
        self, path: str, kind: type, dtype: Any, use_running_average: bool | None = True
    ):
        self.path = path
        self.kind = kind
        self.dtype = dtype
        self.use_running_average = use_running_average

    @property
    def __class__(self) -> type:  # pyright: ignore
        """The norm's class, for models that check the types of their layers."""
        return self.kind

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickles and copies it as what it is: both would go by `__class__`."""
        return Folded, (self.path, self.kind, self.dtype, self.use_running_average)

    def __call__(self, *args: Any, **kwargs: Any) -> Float[Array, "..."]:
        """Returns x in the dtype of the norm's output; takes the arguments of the norm.

        Raises:
          ValueError: the norm is called in training.
        """
        bound = inspect.signature(self.kind.__call__).bind(self, *args, **kwargs)
        x = bound.args[1]
        if is_given(bound.arguments, "mask", "weights", "scale", "bias"):
            raise ValueError(
                f"{self.path} is folded into the layer next to it, and takes no mask, "
                "weights, scale or bias; fold the model with the arguments that it is to "
                "be called with, which leaves this norm in place."
            )
        if any(modes_of(self, bound.arguments)):
            raise ValueError(
                f"{self.path} is folded into the layer next to it, with fixed statistics, "
                "and cannot train; write model.eval(), or train the original model."
            )
        return jnp.asarray(x, self.dtype)

    def set_view(
        self, use_running_average: bool | None = None, train: bool | None = None
    ) -> None:
        """Sets the mode, as in `BatchNorm`."""
        if use_running_average is not None or train is not None:
            self.use_running_average = not resolve_train(
                train=train, use_running_average=use_running_average
            )
