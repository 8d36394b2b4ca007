"""A Linen model without the norms that could be folded into its layers."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from jaxnorm.linen.modules import LAYERS, NORMS, variables_at, variables_of
from jaxnorm.linen.watching import traced, watching
from jaxnorm.model.dataflow import is_array
from jaxnorm.model.folding.pairing import FoldReport, fold_pairs, pair
from jaxnorm.model.modules import RunningNorm, Watcher
from jaxnorm.model.spec import NormSpec, arguments_of

# What `apply` takes for itself.
APPLY = ("mutable", "capture_intermediates")


class Folded(NamedTuple):
    """A model some of whose norms are folded into layers; only to be applied.

    Attributes:
      model: as it was.
      norms: the paths of those that are gone, each with the dtype of its output.
      biased: the paths of layers that had no bias, and have one now.
      call: how the model was called when it was folded, but for arrays.
    """

    model: nn.Module
    norms: tuple[tuple[str, Any], ...]
    biased: tuple[str, ...]
    call: tuple[tuple[str, Any], ...]

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As of the model: what it gives, with the variables of the `Folding`.

        Raises:
          ValueError: the arguments other than arrays are not those that it was folded with,
            or a norm that is folded is to train.
        """
        _check_call(self.call, _call_of(self.model, args, kwargs))
        dtypes = dict(self.norms)

        def around(path: str, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
            if path in dtypes and module in NORMS:
                x, _ = arguments_of(module, args, kwargs)
                _check_evaluates(path, NORMS.spec(module, args, kwargs))
                return x.astype(dtypes[path])
            y = call(*args, **kwargs)
            if path in self.biased and isinstance(module, tuple(LAYERS)):
                bias = nn.meta.unbox(module.get_variable("params", "bias"))
                y = y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(y.ndim - 1)))
            return y

        with watching(around):
            return self.model.apply(variables, *args, **kwargs)


class Folding(NamedTuple):
    """What `fold` makes of a Linen model.

    Attributes:
      model: the model without the norms, to be applied as it was.
      variables: for it: as the model's, without those of the norms that are folded.
      report: what became of each norm.
    """

    model: Folded
    variables: dict[str, Any]
    report: FoldReport


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
      kwargs: likewise, such as train=False, method= or rngs=.

    Returns:
      Folding(model, variables, report). `folded.model.apply(folded.variables, x, ...)`
      takes the place of `model.apply(variables, x, ...)`, with any arrays, and all else as
      it is said here. Parameters of 16 bits are rounded once more than they were.

    Raises:
      ValueError: the model called no norm with running statistics, or some are missing.

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
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables)):
        raise ValueError("variables are shapes, but arrays are expected, to be folded.")
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
    """All that is said in a call of `apply`, but for the arrays and the random keys."""
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
            f"the model was folded for another call: it differs in {said}, and norms may "
            "then be elsewhere; fold it for this call. What is folded cannot train."
        )


def _check_evaluates(path: str, spec: NormSpec) -> None:
    if spec.train or spec.update:
        raise ValueError(
            f"{path} is folded into the layer beside it, with the statistics that it had, "
            "and cannot train any more; write train=False, or train the model it is of."
        )


def _without(
    variables: dict[str, Any],
    norms: Mapping[str, RunningNorm],
    gone: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> dict[str, Any]:
    """The variables without those of the norms that are gone, and with others in layers."""

    def replaced(tree: Any, path: str, changed: Mapping[str, Any]) -> Any:
        new = {}
        for name, value in tree.items():
            if isinstance(value, Mapping):
                below = replaced(value, f"{path}/{name}" if path else name, changed)
                # A branch that is empty now was the norm's.
                new |= {name: below} if below or not value else {}
            elif not (path in gone and name in norms[path].shapes):
                new[name] = value
        for name, array in changed.get(path, {}).items():
            # Into the box that it was in, if in any.
            new[name] = jax.tree.map(lambda _, array=array: array, tree.get(name, array))
        return new

    trees = {"params": changed, "batch_stats": {}}
    new = {name: replaced(variables.pop(name, {}), "", trees[name]) for name in trees}
    return {**variables, **{name: tree for name, tree in new.items() if tree}}
