"""Folds the norms of a Linen model into its layers."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from jaxnorm.linen.modules import LAYERS, NORMS, variables_at, variables_of
from jaxnorm.linen.watching import WatchedModel, check_model, traced, watching
from jaxnorm.model.dataflow import is_array
from jaxnorm.model.folding.pairing import FoldReport, fold_pairs, pair
from jaxnorm.model.modules import RunningNorm, Watcher
from jaxnorm.model.spec import NormSpec, arguments_of

# Arguments that `apply` does not pass on to the model.
APPLY = ("mutable", "capture_intermediates")


@dataclass(frozen=True)
class Folded(WatchedModel):
    """A model with norms folded into layers; it cannot be trained.

    Attributes:
      model: the original model.
      norms: paths of the folded norms, each with the dtype of its output.
      biased: paths of the layers that gained a bias.
      call: the arguments that the model was folded with, except arrays.
    """

    norms: tuple[tuple[str, Any], ...]
    biased: tuple[str, ...]
    call: tuple[tuple[str, Any], ...]

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Applies the model as `model.apply` does, with the variables of the `Folding`.

        Raises:
          ValueError: arguments other than arrays differ from those the model was folded
            with, or a folded norm is called in training.
        """
        _check_call(self.call, _call_of(self.model, args, kwargs))
        return super().apply(variables, *args, **kwargs)

    def running(self, whole: bool) -> AbstractContextManager[None]:
        """Returns the context in which folded norms are left out."""
        return watching(self._around)

    def _around(self, path: str, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
        """Leaves out a folded norm, and adds the bias that a layer gained."""
        dtypes = dict(self.norms)
        if path in dtypes and module in NORMS:
            x, given = arguments_of(module, args, kwargs)
            _check_evaluates(path, NORMS.spec(module, x, given))
            return x.astype(dtypes[path])
        y = call(*args, **kwargs)
        if path in self.biased and isinstance(module, tuple(LAYERS)):
            if module.is_initializing() and not module.has_variable("params", "bias"):
                first = jnp.zeros(y.shape[-1:], module.param_dtype)
                module.put_variable("params", "bias", first)
            bias = nn.meta.unbox(module.get_variable("params", "bias"))
            y = y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
        return y


class Folding(NamedTuple):
    """The result of `fold` for a Linen model.

    Attributes:
      model: the model without the folded norms, to be applied as before.
      variables: its variables, without those of the folded norms.
      report: which norms were folded, and why others were kept.
    """

    model: Folded
    variables: dict[str, Any]
    report: FoldReport


def fold(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Folding:
    """Folds the batch norms of a trained model into the layers next to them.

    In evaluation, a batch norm is an affine function of each feature. The dense or conv
    layer before or after it can compute this function too, with a different kernel and
    bias. These layers are found by tracing the model; names and the order of definition do
    not matter.

    A norm is folded only if the outputs stay the same up to rounding: into the layer before
    it, if that layer's output is not used elsewhere; otherwise into the layer after it, if
    the norm's output is not used elsewhere and that layer does not pad it with zeros. It is
    kept if there is anything between the two; if it normalises with the batch, updates its
    statistics or is called with a mask; or if either is called more than once or does not
    use its variables as they are stored, as under `nn.scan` or `nn.WeightNorm`. The report
    gives the reason.

    Args:
      model: a model with norms of jaxnorm or flax.
      variables: its variables, `{"params": ..., "batch_stats": ...}`. They are not changed.
      args: further arguments of `model.apply`, such as the inputs. Only their shapes and
        dtypes matter, so they may be `jax.ShapeDtypeStruct`s.
      kwargs: keyword arguments of `model.apply`, such as train=False, method= or rngs=.

    Returns:
      Folding(model, variables, report). `folded.model.apply(folded.variables, x, ...)`
      replaces `model.apply(variables, x, ...)`. It accepts any arrays, but all other
      arguments must be the same as here. 16-bit parameters are rounded once more.

    Raises:
      ValueError: the model called no norm with running statistics, or some of these
        statistics are missing.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2, line 11.

    >>> import jaxnorm.linen as jn
    >>> model = nn.Sequential([nn.Dense(2), jn.BatchNorm(train=False)])
    >>> x = jnp.ones((1, 3))
    >>> folded = fold(model, model.init(jax.random.key(0), x), x)
    >>> print(folded.report)
    1 of 1 norms folded:
    layers_1  folded into layers_0, which comes before it
    >>> folded.model.apply(folded.variables, x).shape
    (1, 2)
    >>> jax.tree.map(jnp.shape, folded.variables)
    {'params': {'layers_0': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    check_model(model)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables)):
        raise ValueError(
            "variables are shapes, but arrays are expected; pass arrays, as `init` returns."
        )
    watcher = Watcher(LAYERS, NORMS, variables_of)
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
    call = _call_of(model, args, kwargs)
    return Folding(
        Folded(model, tuple(gone.items()), biased, call),
        _without(dict(variables), watcher.norms, gone, changed),
        report,
    )


def _call_of(model: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[str, Any], ...]:
    """Returns all arguments of a call of `apply`, except arrays and random keys."""
    said = {name: value for name, value in kwargs.items() if name != "rngs"}
    method = said.pop("method", None) or "__call__"
    of_apply = {name: said.pop(name) for name in APPLY if name in said}
    called = getattr(type(model), method) if isinstance(method, str) else method
    called = getattr(called, "__func__", called)
    bound = inspect.signature(called).bind(model, *args, **said)
    bound.apply_defaults()
    own, *_ = bound.arguments
    told = {name: each for name, each in bound.arguments.items() if name != own}
    leaves = jax.tree.leaves_with_path(told | of_apply, is_leaf=lambda each: each is None)
    return (
        ("method", called.__qualname__),
        *(
            (keystr(path, simple=True, separator="/"), leaf)
            for path, leaf in leaves
            if not is_array(leaf)
        ),
    )


def _check_call(expected: tuple[tuple[str, Any], ...], given: Any) -> None:
    if given != expected:
        different = [each for each in given if each not in expected] or list(expected)
        said = ", ".join(f"{name}={value!r}" for name, value in different)
        raise ValueError(
            f"the model was folded for another call, which differs in {said}; fold it with "
            "the arguments of this call. A folded model cannot be trained."
        )


def _check_evaluates(path: str, spec: NormSpec) -> None:
    if spec.train or spec.update:
        raise ValueError(
            f"{path} is folded into the layer next to it, with fixed statistics, and "
            "cannot train; write train=False, or train the original model."
        )


def _without(
    variables: dict[str, Any],
    norms: Mapping[str, RunningNorm],
    gone: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the variables without the folded norms', and with the layers' new ones."""

    def replaced(tree: Any, path: str, changed: Mapping[str, Any]) -> Any:
        new = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                below = replaced(value, f"{path}/{name}" if path else name, changed)
                # A branch that has become empty belonged to a folded norm.
                new |= {name: below} if below or not value else {}
            elif not (path in gone and name in norms[path].shapes):
                new[name] = value
        for name, array in changed.get(path, {}).items():
            # Keep the box of the old value, if it had one.
            new[name] = jax.tree.map(lambda _, array=array: array, tree.get(name, array))
        return new

    trees = {"params": changed, "batch_stats": {}}
    new = {name: replaced(variables.pop(name, {}), "", trees[name]) for name in trees}
    return {**variables, **{name: tree for name, tree in new.items() if tree}}
