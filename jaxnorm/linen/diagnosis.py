"""Diagnosing a Linen model: what its norms do on a batch, in training and in evaluation."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import DenyList

from jaxnorm.diagnostics.activations import Activation, as_activation
from jaxnorm.diagnostics.batches import Seen, compiled, report_of
from jaxnorm.diagnostics.gap import differences
from jaxnorm.diagnostics.observing import Call, Observer
from jaxnorm.diagnostics.report import NormReport
from jaxnorm.linen.calling import call_in_mode, in_mode
from jaxnorm.linen.modules import NORMS, variables_of
from jaxnorm.linen.watching import watching

COLLECTION = "diagnosis"


def diagnose(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Any,
    *,
    call: Callable[[Any, Any, bool], Any] | None = None,
    activation: str | Mapping[str, str] | None = None,
    rngs: Any = None,
) -> NormReport:
    """What the norms of a model do on some batches, and what is likely wrong with them.

    Runs the model in training and in evaluation on each batch, and changes nothing. It
    sees the norms of jaxnorm and of flax. `print` shows the report as a table whose last
    column says what to do, `.plot()` draws it, `.to_dict()` is JSON. docs/diagnose.md
    has all that it knows, with the thresholds.

    Args:
      model: a Linen module.
      variables: its variables, as `apply` takes them.
      batches: an array, or a dict of arrays, is one batch; all else several, one after
        another. Of the size of those of training, or it cannot tell if they are small.
      call: `call(model, batch, train)`, with the model bound to its variables; by default
        `model(batch, train=train)`, or with training=, is_training=, deterministic= or
        use_running_average=, whichever it takes in the call or as an attribute. Compiled
        once a shape of batch, and again for another call: give a function with a name.
      activation: the name of what follows the norms, such as "relu", to know what is
        saturated; or a mapping of norms' paths to names.
      rngs: as of `apply`; by default one key for all.

    Raises:
      TypeError: activation is no name.
      ValueError: it is not known; there are no batches, or no norms are called.

    Norms inside nn.scan and nn.vmap are not seen, those inside nn.remat and nn.jit are. A
    norm with an axis_name wants that axis to be mapped: diagnose the model made without it.

    >>> import jaxnorm.linen as jn
    >>> x = 5 + jax.random.normal(jax.random.key(0), (64, 3))
    >>> norm = jn.BatchNorm()
    >>> report = diagnose(norm, norm.init(jax.random.key(0), x, train=False), x)
    >>> [each.fault for each in report.diagnoses]
    ['never updated']
    """
    names = as_activation(activation)
    step = compiled(_step, model=model, call=call, activation=names)
    rngs = jax.random.key(0) if rngs is None else rngs
    return report_of(functools.partial(step, variables, rngs), batches, names)


def _step(
    variables: Any,
    rngs: Any,
    batch: Any,
    *,
    model: nn.Module,
    call: Callable[[Any, Any, bool], Any] | None,
    activation: Activation,
) -> Seen:
    train, evaluated = (
        _run(model, variables, rngs, batch, call, mode, Observer(activation))
        for mode in (True, False)
    )
    return train[1], evaluated[1], differences(train[0], evaluated[0])


def _run(
    model: nn.Module,
    variables: Any,
    rngs: Any,
    batch: Any,
    call: Callable[[Any, Any, bool], Any] | None,
    train: bool,
    observer: Observer,
) -> tuple[Any, list[Call]]:
    """The output of the model in a mode, and what was observed on the way."""

    def around(
        path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if module not in NORMS:
            return norm(*args, **kwargs)
        before = variables_of(module)
        y = norm(*args, **kwargs)
        # In a collection it passes what transforms the module.
        spec = NORMS.spec(module, args, kwargs)
        seen = observer.observe(path, module, spec, args, kwargs, y, before)
        module.sow(COLLECTION, "calls", seen)
        return y

    def bound(model: Any) -> Any:
        return (call or call_in_mode)(model, batch, train)

    model = model if call else in_mode(model, train)
    with watching(around):
        # Evaluating, statistics that are missing are not to be made up.
        there = [*(name for name in variables if name != "params"), COLLECTION]
        mutable = DenyList("params") if train else there
        output, updates = nn.apply(bound, model, mutable=mutable)(variables, rngs=rngs)
    sown = jax.tree.leaves(updates.get(COLLECTION, {}), is_leaf=_is_call)
    return output, sown


def _is_call(each: Any) -> bool:
    return isinstance(each, Call)
