"""Running statistics: what an estimator is, and its state as names and arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnorm.moments import Moments


class Estimator(NamedTuple):
    """An estimator of population moments from those of one batch after another.

    Like an optax transformation, it is functions and no state: the state goes in as
    an argument and comes out as a result, with the same structure, shapes and dtypes.

    Attributes:
      init: `init(shape, dtype=float32) -> state`, for features of this shape.
      update: `update(state, moments) -> state`, with one more batch seen. A count of
        0 leaves the statistics as they are.
      read: `read(state) -> Moments`, to normalise with in evaluation. Its count is
        infinite: it stands for the population, not for a sample that could be merged.
    """

    init: Callable[..., Any]
    update: Callable[[Any, Moments], Any]
    read: Callable[[Any], Moments]


def named(state: Any) -> dict[str, Any]:
    """The arrays of an estimator's state under the names that a module keeps them by.

    What is in a field called `statistics` keeps its own names, so that those of an
    estimator within another stay `mean` and `var`.

    >>> from jaxnorm import accumulate, ema
    >>> list(named(accumulate(ema(0.9), every=4).init((2,))))
    ['mean', 'var', 'pending_count', 'pending_mean', 'pending_var', 'batches']
    """
    leaves = jax.tree.leaves_with_path(state)
    parts = [
        [jax.tree_util.keystr((key,), simple=True) for key in path] for path, _ in leaves
    ]
    names = ["_".join(part for part in each if part != "statistics") for each in parts]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the state has arrays of the names {names}, of which some are the same; put "
            "no estimator into another of its kind."
        )
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def unnamed(arrays: Mapping[str, Any], like: Any) -> Any:
    """The state, of the structure of `like`, whose named arrays are these."""
    return jax.tree.unflatten(
        jax.tree.structure(like), [arrays[name] for name in named(like)]
    )


def as_statistics(statistics: Any, estimator: Estimator, shape: tuple[int, ...]) -> Any:
    """`statistics` as arrays, if they are a state of `estimator` for these features.

    Raises a TypeError if they have another structure or kind of dtype, or the estimator
    is none; a ValueError if they have another shape.
    """
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator={estimator!r}, but an Estimator is expected; for a moving average "
            "write ema(decay), as in ema(0.99)."
        )
    expected = jax.eval_shape(lambda: estimator.init(shape))
    mend = f"start with estimator.init({shape}), and pass on what the last call returned."
    if jax.tree.structure(statistics) != jax.tree.structure(expected):
        raise TypeError(
            f"statistics is {_describe(statistics)}, but this estimator keeps "
            f"{_describe(expected)}, with an array in each field; {mend}"
        )
    statistics = jax.tree.map(jnp.asarray, statistics)
    given = jax.tree.map(jnp.shape, statistics)
    if given != jax.tree.map(jnp.shape, expected):
        raise ValueError(
            f"statistics has the shapes {given}, but the features of x have shape "
            f"{shape}; {mend}"
        )
    if jax.tree.map(_is_floating, statistics) != jax.tree.map(_is_floating, expected):
        dtypes = jax.tree.map(lambda each: each.dtype.name, statistics)
        raise TypeError(
            f"statistics has the dtypes {dtypes}, but would lose what it learns in these; "
            f"{mend}"
        )
    return statistics


def _is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _describe(tree: Any) -> str:
    fields = getattr(tree, "_fields", None)
    return type(tree).__name__ + (f"({', '.join(fields)})" if fields else "")
