"""Diagnosing an NNX model: what its norms do on a batch, in training and in evaluation."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import errors, nnx

from jaxnorm.diagnostics.activations import Activation, as_activation
from jaxnorm.diagnostics.batches import Seen, compiled, report_of
from jaxnorm.diagnostics.gap import differences
from jaxnorm.diagnostics.observing import Call, Observer
from jaxnorm.diagnostics.report import NormReport
from jaxnorm.nnx.modules import NORMS
from jaxnorm.nnx.watching import watched


class Observation(nnx.Variable[Any]):
    """What was observed of one call of a norm."""


def _call(model: Any, batch: Any, train: bool) -> Any:
    return model(batch)


def diagnose(
    model: nnx.Module,
    batches: Any,
    *,
    call: Callable[[Any, Any, bool], Any] = _call,
    activation: str | Mapping[str, str] | None = None,
) -> NormReport:
    """What the norms of a model do on some batches, and what is likely wrong with them.

    Runs a copy of the model after `train()` and after `eval()` on each batch; the model is
    not changed, nor are its random keys. It sees the norms of jaxnorm and of flax. `print`
    shows the report as a table whose last column says what to do, `.plot()` draws it,
    `.to_dict()` is JSON. docs/diagnose.md has all that it knows, with the thresholds.

    Args:
      model: an NNX module.
      batches: an array, or a dict of arrays, is one batch; all else several, one after
        another. Of the size of those of training, or it cannot tell if they are small.
      call: `call(model, batch, train)`, by default `model(batch)`; compiled once a shape
        of batch.
      activation: the name of what follows the norms, such as "relu", to know what is
        saturated; or a mapping of norms' paths to names.

    Raises:
      TypeError: activation is no name.
      ValueError: it is not known; there are no batches, or no norms are called.

    Of norms that nnx.scan and nnx.vmap map each index is seen by itself; those inside
    jax.vmap and other transforms of JAX itself are not seen.

    >>> import jaxnorm.nnx as jx
    >>> x = 5 + jax.random.normal(jax.random.key(0), (64, 3))
    >>> report = diagnose(jx.BatchNorm(3, rngs=nnx.Rngs(0)), x)
    >>> [each.fault for each in report.diagnoses]
    ['never updated']
    """
    names = as_activation(activation)
    graph, state = nnx.split(model)
    step = compiled(_step, graph=graph, call=call, activation=names)
    return report_of(functools.partial(step, state), batches, names)


def _step(
    state: Any,
    batch: Any,
    *,
    graph: Any,
    call: Callable[[Any, Any, bool], Any],
    activation: Activation,
) -> Seen:
    train, evaluated = (
        _run(nnx.merge(graph, state, copy=True), batch, call, mode, activation)
        for mode in (True, False)
    )
    return train[1], evaluated[1], differences(train[0], evaluated[0])


def _run(
    model: Any,
    batch: Any,
    call: Callable[[Any, Any, bool], Any],
    train: bool,
    activation: Activation,
) -> tuple[Any, list[Call]]:
    """The output of the model in a mode, and what was observed on the way."""
    observer = Observer(activation)

    def around(
        path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        before = _variables_of(module)
        y = norm(*args, **kwargs)
        # In the module it passes what transforms that.
        number = sum(isinstance(each, Observation) for each in vars(module).values())
        spec = NORMS.spec(module, args, kwargs)
        seen = observer.observe(path, module, spec, args, kwargs, y, before)
        # Within a transform of JAX itself, not of NNX, nothing can be written down.
        with contextlib.suppress(errors.TraceContextError):
            setattr(module, f"observed_{number}", Observation(seen))
        return y

    model.train() if train else model.eval()
    copy = watched(model, NORMS.is_kind, around)
    output = call(copy, batch, train)
    state = nnx.to_flat_state(nnx.state(copy, Observation))
    return output, [variable.get_value() for _, variable in state]


def _variables_of(module: Any) -> dict[str, Any]:
    return {
        name: each[...]
        for name, each in vars(module).items()
        if isinstance(each, nnx.Variable) and not isinstance(each, Observation)
    }
