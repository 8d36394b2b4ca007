"""Calibration: measures the statistics of every norm of a network again."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array
from tqdm import tqdm

from jaxnorm._core.moments import Finer, Moments, merge_finer, unbiased_variance
from jaxnorm._core.pairwise import Cascade
from jaxnorm.statistics.batch_stats import (
    at_norms,
    check_collected_in,
    collected_in,
    nothing_collected,
    with_collectors,
)


def calibrate(
    apply: Callable[[Any, Any], tuple[Any, Any]],
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    unbiased: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Remeasures the statistics of every batch norm of a network, at fixed weights.

    Use it when the running statistics do not match the network: after averaging its
    weights, with a moving average that is too slow, or on another domain. Each norm gets
    the moments of its inputs over all batches. They are merged in pairs, as in `fit`, with
    the rounding of the means compensated, so that accuracy does not depend on the number of
    batches. The old statistics, and anything pending in an `accumulate`, are dropped;
    weights do not change. With `skip_nonfinite`, batches that are not finite are left out;
    otherwise they raise an error at the end.

    With train=True in `apply`, a norm is measured after norms that normalise with each
    batch, as in training; this takes one pass over the data, in batches of the usual size.
    With train=False and update=True, it is measured after norms that use their previous
    statistics; the first norm of a network is then right after one pass, the second after
    another one, and so on.

    Args:
      apply: `apply(variables, batch) -> (anything, updates)`, such as a Linen module's with
        mutable=["batch_stats"]; compiled once per batch shape.
      variables: the variables of the network, with the collection `batch_stats`.
      batches: the batches, as apply takes them.
      unbiased: whether the variance is multiplied by N/(N − 1), for N samples in all;
        `population` makes its own correction instead.
      progress: whether to show a progress bar on stderr.

    Returns:
      The variables, with new arrays in `batch_stats`.

    Raises:
      TypeError: apply returns no updates.
      ValueError: there are no batches; a norm saw none of them, saw one that is not
        finite, or is not jaxnorm's.

    It can be called under jax.jit, for a moderate number of batches.

    To stop and resume, or to measure on several machines, call `collect_moments` on some
    of the batches, continue with `start=`, and pass the result to `with_moments`.

    Source: Wu & Johnson 2021, "Rethinking Batch in BatchNorm" (arXiv:2105.07576), section
    3.2, where it is called PreciseBN.

    >>> import jaxnorm.linen as jn
    >>> model = jn.BatchNorm(train=True)
    >>> batches = [jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [7.0]])]
    >>> variables = model.init(jax.random.key(0), batches[0])
    >>> apply = lambda variables, x: model.apply(variables, x, mutable=["batch_stats"])
    >>> calibrate(apply, variables, batches, progress=False)["batch_stats"]["mean"]
    Array([4.], dtype=float32)
    """
    collected = collect_moments(apply, variables, batches, progress=progress)
    return with_moments(variables, collected, unbiased=unbiased)


def check_behind(behind: Any) -> None:
    """Raises a ValueError unless it is "batch" or "running"."""
    if behind not in ("batch", "running"):
        raise ValueError(f"behind={behind!r}, but 'batch' or 'running' is expected.")


def collect_moments(
    apply: Callable[[Any, Any], tuple[Any, Any]],
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    start: Any = None,
    progress: bool = True,
) -> Any:
    """Collects the moments of the inputs of every batch norm, over all batches.

    Args:
      apply: as for `calibrate`.
      variables: as for `calibrate`.
      batches: as for `calibrate`; may be empty if there is a start.
      start: the result of an earlier call, to continue from. The result is the same as in
        one pass over all batches, up to rounding, as other pairs are merged.
      progress: whether to show a progress bar on stderr.

    Returns:
      The Moments of each norm, nested as the statistics in `batch_stats`. The results of
      several calls can be merged: `jax.tree.map(jaxnorm.merge, one, another,
      is_leaf=lambda each: isinstance(each, jaxnorm.Moments))`.

    Raises:
      TypeError: apply returns no updates.
      ValueError: there are no batch norms, or start is from another network.

    >>> import jaxnorm.linen as jn
    >>> model = jn.BatchNorm(train=True)
    >>> first, second = jnp.array([[1.0], [3.0]]), jnp.array([[5.0], [7.0]])
    >>> variables = model.init(jax.random.key(0), first)
    >>> apply = lambda variables, x: model.apply(variables, x, mutable=["batch_stats"])
    >>> some = collect_moments(apply, variables, [first], progress=False)
    >>> collect_moments(apply, variables, [second], start=some, progress=False).mean
    Array([4.], dtype=float32)
    """
    nothing = nothing_collected(variables.get("batch_stats", {}))
    if not jax.tree.leaves(nothing):
        raise ValueError(
            f"there is no batch norm in the variables, which hold {sorted(variables)}; "
            "pass all variables, with the statistics in 'batch_stats'."
        )

    if start is not None:
        check_collected_in(start, variables["batch_stats"])
        # Nested in the same mappings as below, whatever kind it was restored into.
        start = at_norms(
            lambda _, moments: moments, variables["batch_stats"], start, others=False
        )

    @jax.jit
    def step(variables: Any, batch: Any) -> Any:
        collecting = with_collectors(variables["batch_stats"], nothing)
        result = apply({**variables, "batch_stats": collecting}, batch)
        return collected_in(_updates_of(result))

    cascade = Cascade(merge_collected)
    for batch in tqdm(batches, "calibrating", unit="batch", disable=not progress):
        cascade.add(finer(step(variables, batch)))
    total = cascade.total(None if start is None else finer(start))
    return nothing if total is None else rounded(total)


@jax.jit
def merge_collected(one: Any, another: Any) -> Any:
    """Merges the Finer moments of each norm, however they are nested."""
    return jax.tree.map(merge_finer, one, another, is_leaf=_is_finer)


def finer(collected: Any) -> Any:
    """Converts the Moments of each norm to Finer ones, for merging."""
    return jax.tree.map(Finer.of, collected, is_leaf=_is_moments)


def rounded(collected: Any) -> Any:
    """Converts the Finer moments of each norm back, after merging."""
    return jax.tree.map(lambda each: each.moments, collected, is_leaf=_is_finer)


def with_moments(
    variables: Mapping[str, Any], collected: Any, *, unbiased: bool = True
) -> dict[str, Any]:
    """Returns the variables of a network, with statistics from collected moments.

    Args:
      variables: the variables of the network, with the collection `batch_stats`.
      collected: the result of `collect_moments`.
      unbiased: whether the variance is multiplied by N/(N − 1), for N samples in all.

    Raises:
      ValueError: the moments of a norm are empty, missing, or not finite.

    >>> variables = {"batch_stats": {"norm": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}}
    >>> collected = {"norm": Moments(jnp.full(1, 4.0), jnp.ones(1), jnp.full(1, 3.0))}
    >>> with_moments(variables, collected)["batch_stats"]["norm"]["var"]
    Array([4.], dtype=float32)
    """
    check_collected_in(collected, variables["batch_stats"])
    check_collected(
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): moments
            for path, moments in jax.tree.leaves_with_path(collected, is_leaf=_is_moments)
        }
    )

    def replaced(statistics: Mapping[str, Any], moments: Moments) -> dict[str, Any]:
        return {**statistics, **settled(statistics, moments, unbiased=unbiased)}

    statistics = at_norms(replaced, variables["batch_stats"], collected)
    return {**variables, "batch_stats": statistics}


def settled(
    statistics: Mapping[str, Any], moments: Moments, *, unbiased: bool
) -> dict[str, Array]:
    """The statistics of a norm that the moments change, for features that had samples.

    Count, mean and var are set from the moments; pending batches are dropped, and the next
    batch is no longer the first.
    """
    # A state with a count keeps the biased variance, and corrects it in `read`.
    corrected = unbiased and "count" not in statistics
    var = unbiased_variance(moments) if corrected else moments.var
    changed = {
        name: value.astype(statistics[name].dtype)
        for name, value in moments._replace(var=var)._asdict().items()
        if name in statistics
    }
    if "updates" in statistics:
        changed["updates"] = jnp.maximum(statistics["updates"], 1)
    seen = {
        name: jnp.where(moments.count > 0, value, statistics[name])
        for name, value in changed.items()
    }
    waiting = ("batches", "pending_count", "pending_mean", "pending_var")
    return seen | {
        name: jnp.zeros_like(statistics[name]) for name in waiting if name in statistics
    }


def check_collected(collected: Mapping[str, Moments]) -> None:
    """Raises a ValueError that names the norms with empty or non-finite moments.

    Traced moments cannot be checked; a norm that had no samples then keeps its statistics.
    """
    known = {
        name or "the norm": each
        for name, each in collected.items()
        if not isinstance(each.count, Tracer)
    }
    empty = [name for name, each in known.items() if not each.count.any()]
    if empty:
        raise ValueError(
            f"nothing was measured at {', '.join(empty)}: no batch was given, or none "
            "updated the statistics there, or the norm is not from jaxnorm; pass batches "
            "(an exhausted iterator has none), and an apply that trains, or evaluates with "
            "update=True. Nothing was changed."
        )
    spoilt = [name for name, each in known.items() if not _is_finite(each)]
    if spoilt:
        raise ValueError(
            f"the moments measured at {', '.join(spoilt)} are not finite; leave out the "
            "batch with NaN or infinity, or wrap the estimators in skip_nonfinite. "
            "Nothing was changed."
        )


def _is_finite(moments: Moments) -> bool:
    return all(bool(jnp.isfinite(each).all()) for each in moments)


def _updates_of(result: Any) -> Any:
    match result:
        case (_, {"batch_stats": statistics}):
            return statistics
    raise TypeError(
        f"apply returned {type(result).__name__}, but a tuple (outputs, updates) with "
        "'batch_stats' in the updates is expected, as from model.apply(variables, batch, "
        'mutable=["batch_stats"]).'
    )


def _is_moments(each: Any) -> bool:
    return isinstance(each, Moments)


def _is_finer(each: Any) -> bool:
    return isinstance(each, Finer)
