"""Diagnosis of an NNX model: observes its norms in training and in evaluation."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import errors, nnx

from jaxnorm.diagnostics.activations import as_activation
from jaxnorm.diagnostics.batches import compiled, report_of
from jaxnorm.diagnostics.observing import UNKNOWN, Recorded, Recorder
from jaxnorm.diagnostics.report import NormReport
from jaxnorm.model.spec import arguments_of
from jaxnorm.nnx.modules import NORMS
from jaxnorm.nnx.watching import Watched, watched

LOST = "is not called, or only inside a transform of JAX"


class Recording(nnx.Variable[Any]):
    """A recorded call of a norm."""


def _call(model: Any, batch: Any, train: bool) -> Any:
    return model(batch)


def diagnose(
    model: nnx.Module,
    batches: Any,
    *,
    call: Callable[[Any, Any, bool], Any] = _call,
    activation: str | Mapping[str, str] | None = None,
) -> NormReport:
    """Reports what the norms of a model do on given batches, and what is probably wrong.

    A copy of the model is run after `train()` and after `eval()` on each batch; the model
    and its random keys are not changed. Norms of jaxnorm and flax are recognised. `print`
    shows the report as a table whose last column says what to do, `.plot()` draws it, and
    `.to_dict()` converts it for JSON. docs/diagnose.md lists all diagnoses and their
    thresholds.

    Args:
      model: an NNX module.
      batches: an array or a dict of arrays is a single batch; anything else is an iterable
        of batches. Use the training batch size, since batches that are too small are
        reported.
      call: `call(model, batch, train)`; defaults to `model(batch)`. Compiled once per batch
        shape.
      activation: name of the activation after the norms, such as "relu", to detect
        saturated outputs; or a mapping from paths of norms to names.

    Returns:
      A NormReport.

    Raises:
      TypeError: activation is neither a name nor a mapping of names.
      ValueError: the activation is unknown; there are no batches; no norm was called.

    Norms inside nnx.scan and nnx.vmap are reported once per index. Norms inside jax.vmap
    and other transforms of JAX itself are not observed.

    >>> import jaxnorm.nnx as jx
    >>> x = 5 + jax.random.normal(jax.random.key(0), (64, 3))
    >>> report = diagnose(jx.BatchNorm(3, rngs=nnx.Rngs(0)), x)
    >>> [each.fault for each in report.diagnoses]
    ['never updated']
    """
    names = as_activation(activation)
    graph, state = nnx.split(model)
    run = compiled(_run, graph=graph, call=call)
    return report_of(functools.partial(run, state), batches, names)


def _run(
    state: Any,
    batch: Any,
    *,
    train: bool,
    graph: Any,
    call: Callable[[Any, Any, bool], Any],
) -> Recorded:
    """Runs the model in a mode."""
    recorder = Recorder()

    def around(
        path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        before = _variables_of(module)
        y = norm(*args, **kwargs)
        # As variables of the module, calls leave any transform of it.
        number = sum(isinstance(each, Recording) for each in vars(module).values())
        x, given = arguments_of(module, args, kwargs)
        spec = NORMS.spec(module, x, given)
        recorded = recorder.record(path, module, spec, x, given, y, before)
        # Inside a transform of JAX itself, rather than NNX, variables cannot be written.
        with contextlib.suppress(errors.TraceContextError):
            setattr(module, f"recorded_{number}", Recording(recorded))
        return y

    model = nnx.merge(graph, state, copy=True)
    model.train() if train else model.eval()
    copy = watched(model, NORMS.is_kind, around)
    output = call(copy, batch, train)
    recordings = nnx.to_flat_state(nnx.state(copy, Recording))
    for _, each in nnx.iter_modules(copy):
        if type(each) is Watched:
            recorder.note(each.path, each.module, LOST)
    for path, module in nnx.iter_modules(model):
        statistics = [name for name, each in vars(module).items() if _is_statistic(each)]
        if NORMS.may_be(type(module), statistics):
            recorder.note("/".join(map(str, path)), module, UNKNOWN)
    calls = [variable.get_value() for _, variable in recordings]
    return Recorded(output, calls, recorder.unexamined)


def _is_statistic(each: Any) -> bool:
    return isinstance(each, nnx.BatchStat)


def _variables_of(module: Any) -> dict[str, Any]:
    return {
        name: each[...]
        for name, each in vars(module).items()
        if isinstance(each, nnx.Variable) and not isinstance(each, Recording)
    }
