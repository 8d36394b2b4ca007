"""The `batch_stats` collection of a network: its norms, and moments collected in them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnorm._core.dtypes import accumulation_dtype
from jaxnorm._core.moments import Moments
from jaxnorm.statistics.wrappers import COLLECTORS


def at_norms(
    function: Callable[..., Any], statistics: Any, *more: Any, others: bool = True
) -> Any:
    """Maps the statistics of each norm, {"mean": ..., "var": ...}, in a nested mapping.

    Entries that belong to no norm are not changed; they are left out if `others` is False.
    """
    if not _holds_norm(statistics):
        return statistics if others else {}
    if _is_norm(statistics):
        return function(statistics, *more)
    return {
        name: at_norms(function, value, *(each.get(name) for each in more), others=others)
        for name, value in statistics.items()
        if others or _holds_norm(value)
    }


def _is_norm(statistics: Mapping[str, Any]) -> bool:
    """Whether mean and var are arrays; modules may have these names too."""
    return all(
        name in statistics and not isinstance(statistics[name], Mapping)
        for name in ("mean", "var")
    )


def _holds_norm(statistics: Any) -> bool:
    return isinstance(statistics, Mapping) and (
        _is_norm(statistics) or any(map(_holds_norm, statistics.values()))
    )


def nothing_collected(statistics: Any) -> Any:
    """Empty Moments for each norm, nested as the statistics are."""
    return at_norms(_nothing, statistics, others=False)


def check_collected_in(collected: Any, statistics: Any) -> None:
    """Raises a ValueError unless the moments were collected in these norms."""
    expected = nothing_collected(statistics)
    given, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
            for path, leaf in jax.tree.leaves_with_path(each)
        }
        for each in (collected, expected)
    )
    if given != wanted:
        different = sorted(set(given.items()) ^ set(wanted.items()))
        raise ValueError(
            "the moments are from another network than the variables: they differ in "
            f"{different[:4]}; pass the variables that they were collected with."
        )


def with_collectors(statistics: Any, collected: Any) -> Any:
    """The statistics, with the collected moments added to each norm."""
    return at_norms(
        lambda norm, moments: {**norm, **dict(zip(COLLECTORS, moments, strict=True))},
        statistics,
        collected,
    )


def collected_in(statistics: Any) -> Any:
    """The Moments collected in each norm, nested as the statistics are."""
    return at_norms(
        lambda norm: Moments(*(norm[name] for name in COLLECTORS)),
        statistics,
        others=False,
    )


def _nothing(norm: Mapping[str, Any]) -> Moments:
    """Empty Moments in at least float32, on the same devices as the statistics."""
    dtype = accumulation_dtype(jnp.result_type(norm["mean"]))
    return Moments(*(jnp.zeros_like(norm["mean"], dtype) for _ in Moments._fields))
