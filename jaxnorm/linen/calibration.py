"""Calibration of a Linen model: remeasures the statistics of its batch norms."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn

from jaxnorm._core.moments import Moments, merge_into
from jaxnorm.linen.batch import BatchNorm
from jaxnorm.linen.calling import call_in_mode, in_mode
from jaxnorm.linen.modules import NORMS
from jaxnorm.linen.watching import check_model, watching
from jaxnorm.model.measuring import moments_of_input
from jaxnorm.statistics import calibration
from jaxnorm.statistics.wrappers import COLLECTORS


def calibrate(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    call: Callable[[Any, Any, bool], Any] | None = None,
    behind: Literal["batch", "running"] = "batch",
    unbiased: bool = True,
    rngs: Any = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Remeasures the statistics of every batch norm of a model, at fixed weights.

    `jaxnorm.calibrate` does this for any function of variables and a batch; see there for
    when to use it, what happens to the old statistics, and the source.

    Args:
      model: a Linen module that contains norms with running statistics: those of
        jaxnorm.linen and flax.linen, and any others with a `norm_spec` (see
        `jaxnorm.NormSpec`).
      variables: its variables, with the collection `batch_stats`. They are not changed.
      batches: the batches, as call takes them.
      call: `call(model, batch, train)`, with the model bound to its variables; defaults to
        `model(batch, train=train)`, or with training=, is_training=, deterministic= or
        use_running_average= instead, if the model takes that as an argument or has it as an
        attribute. Compiled once per batch shape.
      behind: what the norms before the measured one normalise with: each "batch", as in
        training (call gets train=True), or their previous "running" statistics
        (train=False).
      unbiased: whether the variance is multiplied by N/(N − 1), for N samples in all;
        `population` applies its own correction instead.
      rngs: random keys, as for `apply`; the same for every batch. Needed if the model has
        random layers, such as dropout.
      progress: whether to show a progress bar on stderr.

    Returns:
      The variables, with new statistics in `batch_stats`.

    Raises:
      ValueError: there are no batches or no norms; a norm saw none of the batches, saw one
        that is not finite, or was constructed with update=False; behind is
        neither "batch" nor "running".

    >>> import jaxnorm.linen as jn
    >>> model = jn.BatchNorm()
    >>> batches = [jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [7.0]])]
    >>> variables = model.init(jax.random.key(0), batches[0], train=False)
    >>> calibrate(model, variables, batches, progress=False)["batch_stats"]["mean"]
    Array([4.], dtype=float32)
    """
    calibration.check_behind(behind)
    train = behind == "batch"
    check_model(model)
    called = model if call else in_mode(model, train)

    def around(
        path: str, module: Any, norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(module, BatchNorm) and module.update is False:
            raise ValueError(
                f"{path or type(module).__name__} was constructed with update=False, so "
                "its statistics are fixed; calibrate the same model without update=False, "
                "which has the same variables."
            )
        if isinstance(module, BatchNorm):
            return norm(*args, **{**kwargs, "update": True})
        y = norm(*args, **kwargs)
        # A module that has no statistics of its own may hold a norm that has.
        if module.has_variable("batch_stats", COLLECTORS[0]):
            moments = moments_of_input(NORMS, module, args, kwargs)
            if moments is not None:
                _collect(module, moments)
        return y

    def apply(variables: Any, batch: Any) -> tuple[Any, Any]:
        def bound(model: Any) -> Any:
            return (call or call_in_mode)(model, batch, train)

        with watching(around):
            return nn.apply(bound, called, mutable=["batch_stats"])(variables, rngs=rngs)

    return calibration.calibrate(
        apply, variables, batches, unbiased=unbiased, progress=progress
    )


def _collect(module: Any, moments: Moments) -> None:
    """Merges moments into those collected so far of a norm that does not do it itself."""
    collected = Moments(*(module.get_variable("batch_stats", each) for each in COLLECTORS))
    for name, value in zip(COLLECTORS, merge_into(collected, moments), strict=True):
        module.put_variable("batch_stats", name, value)
