"""A Linen model without the norms that could be folded into its layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnorm.linen.pairs import LAYERS, NORMS, modes_of, variables_at, variables_of
from jaxnorm.linen.watching import traced, watching
from jaxnorm.pairs import Report, Watcher, fold_pairs, pair


class Folding(NamedTuple):
    """What `fold` makes of a Linen model.

    Attributes:
      model: a module that is called as the model is.
      variables: for it: as the model's, without those of the norms that are folded.
      report: what became of each norm.
    """

    model: "Folded"
    variables: dict[str, Any]
    report: Report


def fold(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Folding:
    """A trained model without its batch norms, folded into the layers beside them.

    In evaluation a batch norm is an affine function of each feature, which the dense or
    conv layer before it, or behind it, can do as well, with another kernel and bias. Which
    layers these are is found by tracing the model: not by names, and not in the order of
    definition.

    A norm is folded only where the outputs stay the same, up to rounding: behind a layer
    whose output goes nowhere else; or else before one that gets nothing but the norm's
    output, and does not pad it with zeros. It is kept if anything stands between the two,
    if it normalises with the batch, updates, or is given a mask, and if one of the two is
    called more than once, or does not use its variables as they are stored, as under
    `nn.scan` or `nn.WeightNorm`. The report says so for each.

    Args:
      model: with norms of jaxnorm or flax.
      variables: of the model, `{"params": ..., "batch_stats": ...}`. They are not changed.
      args: what `model.apply` takes, besides: inputs, of which only shapes and dtypes
        count, and which may be `jax.ShapeDtypeStruct`s.
      kwargs: likewise, such as train=False; what method= says is what is folded.

    Returns:
      Folding(model, variables, report). `folded.model.apply(folded.variables, x, ...)` is
      called as the model was, and only evaluates.

    Raises:
      ValueError: the model called no norm with running statistics.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2, line 11.

    >>> import jaxnorm.linen as jn
    >>> model = nn.Sequential([nn.Dense(2), jn.BatchNorm(train=False)])
    >>> x = jnp.ones((1, 3))
    >>> folded = fold(model, model.init(jax.random.key(0), x), x)
    >>> print(folded.report)
    1 of 1 norms folded:
    layers_1  folded into layers_0 before it
    >>> jax.tree.map(jnp.shape, folded.variables)
    {'params': {'layers_0': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    watcher = Watcher(LAYERS, NORMS, variables_of, modes_of)
    flow = traced(watcher, model, variables, *args, **kwargs)
    if not watcher.norms:
        raise ValueError(
            f"{type(model).__name__} called no batch norm of jaxnorm.linen or flax.linen; "
            "there is nothing to fold."
        )
    plain = nn.meta.unbox(dict(variables))
    arrays = {path: variables_at(plain, path) for path in (*watcher.layers, *watcher.norms)}
    found = pair(flow, watcher.layers, watcher.norms)
    report, changed = fold_pairs(found, watcher.layers, watcher.norms, arrays)
    gone = {each.norm: watcher.norms[each.norm].dtype for each in report.folded}
    biased = tuple(path for path in changed if "bias" not in watcher.layers[path].shapes)
    folded = Folded(model, tuple(gone.items()), biased, kwargs.get("method"))
    return Folding(folded, _without(dict(variables), gone, changed), report)


class Folded(nn.Module):
    """A model some of whose norms are folded into layers.

    Attributes:
      model: as it was.
      norms: the paths of those that are gone, each with the dtype of its output.
      biased: the paths of layers that had no bias, and have one now.
      method: what is called of the model, by its name or itself; None is `__call__`.
    """

    model: nn.Module
    norms: tuple[tuple[str, Any], ...]
    biased: tuple[str, ...]
    method: str | Callable[..., Any] | None = None

    def setup(self) -> None:
        """Its variables are those of the model, under the same names."""
        nn.share_scope(self, self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs.

        Raises:
          ValueError: a norm that is folded is to train.
        """
        depth, dtypes = len(self.path), dict(self.norms)

        def around(path: str, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
            path = "/".join(path.split("/")[depth:])
            if path in dtypes and isinstance(module, NORMS):
                _check_evaluates(path, *modes_of(module, args, kwargs))
                x = args[0] if args else kwargs["x"]
                return x.astype(dtypes[path])
            y = call(*args, **kwargs)
            if path in self.biased and isinstance(module, tuple(LAYERS)):
                bias = nn.meta.unbox(module.get_variable("params", "bias"))
                y = y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
            return y

        method = self.method or "__call__"
        if isinstance(method, str):
            method = getattr(type(self.model), method)
        with watching(around):
            return method(self.model, *args, **kwargs)


def _check_evaluates(path: str, train: bool, update: bool) -> None:
    if train or update:
        raise ValueError(
            f"{path} is folded into the layer beside it, with the statistics that it had, "
            "and cannot train any more; write train=False, or train the model it is of."
        )


def _without(
    variables: dict[str, Any], norms: Mapping[str, Any], changed: Mapping[str, Any]
) -> dict[str, Any]:
    """The variables without those of these norms, and with changed ones in layers."""
    for collection in ("params", "batch_stats"):
        tree = variables.pop(collection, {})
        tree = _replaced(tree, "", norms, changed if collection == "params" else {})
        if tree:
            variables[collection] = tree
    return variables


def _replaced(tree: Any, path: str, norms: Mapping[str, Any], changed: Any) -> Any:
    """A tree without the norms' branches, nor branches that are empty then."""
    new = {}
    for name, value in tree.items():
        below = f"{path}/{name}" if path else name
        if below in norms and isinstance(value, Mapping):
            continue
        if isinstance(value, Mapping):
            value = _replaced(value, below, norms, changed)
            if not value:
                continue
        new[name] = value
    for name, array in changed.get(path, {}).items():
        # Into the box that it was in, if in any.
        new[name] = jax.tree.map(lambda _, array=array: array, tree.get(name, array))
    return new
