"""Diagnosis of a Linen model: observes its norms in training and in evaluation."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import DenyList

from jaxnorm.diagnostics.activations import as_activation
from jaxnorm.diagnostics.batches import compiled, report_of
from jaxnorm.diagnostics.observing import UNKNOWN, Call, Recorded, Recorder
from jaxnorm.diagnostics.report import NormReport
from jaxnorm.linen.calling import call_in_mode, in_mode
from jaxnorm.linen.modules import NORMS, variables_of
from jaxnorm.linen.watching import check_model, watching
from jaxnorm.model.spec import arguments_of

COLLECTION = "diagnosis"
# Such a transform drops what is sown, unless it names the collection.
LOST = "is called inside nn.scan or nn.vmap"


def diagnose(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Any,
    *,
    call: Callable[[Any, Any, bool], Any] | None = None,
    activation: str | Mapping[str, str] | None = None,
    rngs: Any = None,
) -> NormReport:
    """Reports what the norms of a model do on given batches, and what is probably wrong.

    The model is run in training and in evaluation mode on each batch; nothing is changed.
    Norms of jaxnorm and flax are recognised. `print` shows the report as a table whose last
    column says what to do, `.plot()` draws it, and `.to_dict()` converts it for JSON.
    docs/diagnose.md lists all diagnoses and their thresholds.

    Args:
      model: a Linen module.
      variables: its variables, as for `apply`.
      batches: an array or a dict of arrays is a single batch; anything else is an iterable
        of batches. Use the training batch size, since batches that are too small are
        reported.
      call: `call(model, batch, train)`, with the model bound to its variables; defaults to
        `model(batch, train=train)`, or with training=, is_training=, deterministic= or
        use_running_average= instead, if the model takes that as an argument or has it as an
        attribute. Compiled once per batch shape and function, so define it once rather than
        passing a new lambda each time.
      activation: name of the activation after the norms, such as "relu", to detect
        saturated outputs; or a mapping from paths of norms to names.
      rngs: random keys, as for `apply`; defaults to one key for all streams.

    Returns:
      A NormReport.

    Raises:
      TypeError: activation is neither a name nor a mapping of names.
      ValueError: the activation is unknown; there are no batches; no norm was called.

    Norms inside nn.remat and nn.jit are observed, but not those inside nn.scan and nn.vmap.
    A norm with an axis_name needs that axis to be mapped; diagnose the same model built
    without it.

    >>> import jaxnorm.linen as jn
    >>> x = 5 + jax.random.normal(jax.random.key(0), (64, 3))
    >>> norm = jn.BatchNorm()
    >>> report = diagnose(norm, norm.init(jax.random.key(0), x, train=False), x)
    >>> [each.fault for each in report.diagnoses]
    ['never updated']
    """
    check_model(model)
    names = as_activation(activation)
    run = compiled(_run, model=model, call=call)
    rngs = jax.random.key(0) if rngs is None else rngs
    return report_of(functools.partial(run, variables, rngs), batches, names)


def _run(
    variables: Any,
    rngs: Any,
    batch: Any,
    *,
    train: bool,
    model: nn.Module,
    call: Callable[[Any, Any, bool], Any] | None,
) -> Recorded:
    """Runs the model in a mode."""
    recorder = Recorder()

    def around(
        path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if module not in NORMS:
            if NORMS.may_be(type(module), module.variables.get("batch_stats", {})):
                recorder.note(path, module, UNKNOWN)
            return norm(*args, **kwargs)
        recorder.note(path, module, LOST)
        before = variables_of(module)
        y = norm(*args, **kwargs)
        # Sown into a collection, calls leave any transform of the module.
        x, given = arguments_of(module, args, kwargs)
        spec = NORMS.spec(module, x, given)
        recorded = recorder.record(path, module, spec, x, given, y, before)
        module.sow(COLLECTION, "calls", recorded)
        return y

    def bound(model: Any) -> Any:
        return (call or call_in_mode)(model, batch, train)

    model = model if call else in_mode(model, train)
    with watching(around):
        # In evaluation, missing statistics must not be initialised.
        there = [*(name for name in variables if name != "params"), COLLECTION]
        mutable = DenyList("params") if train else there
        output, updates = nn.apply(bound, model, mutable=mutable)(variables, rngs=rngs)
    sown = jax.tree.leaves(updates.get(COLLECTION, {}), is_leaf=_is_call)
    return Recorded(output, sown, recorder.unexamined)


def _is_call(each: Any) -> bool:
    return isinstance(each, Call)
