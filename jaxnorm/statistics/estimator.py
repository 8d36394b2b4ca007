"""Running statistics: what an estimator is, and whether a state is one of it."""

from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnorm._core.moments import Moments

# A NamedTuple of arrays: what an estimator knows after some batches.
State = TypeVar("State")


class Estimator(Generic[State]):
    """An estimator of population moments from those of one batch after another.

    Like an optax transformation, it is three pure functions and no state: the state goes
    in as an argument and comes out as a result, with the same structure, shapes and
    dtypes. One of your own derives from this class, best as a frozen dataclass, so that two
    that do the same are equal. A module keeps each array of the state under the name of its
    field; there must be `mean` and `var` among them.
    """

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> State:
        """The state before any batch, for features of this shape."""
        raise NotImplementedError

    def update(self, state: State, moments: Moments) -> State:
        """The state with one more batch seen; a count of 0 leaves the statistics."""
        raise NotImplementedError

    def read(self, state: State) -> Moments:
        """The moments to normalise with in evaluation.

        Their count is infinite: they stand for the population, not for a sample that could
        be merged.
        """
        raise NotImplementedError


def check_estimator(estimator: Any) -> None:
    """Raises a TypeError unless it is an Estimator."""
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator={estimator!r}, but an Estimator is expected; for a moving average "
            "write ema(decay), as in ema(0.99)."
        )


def as_statistics(
    statistics: State, estimator: Estimator[State], shape: tuple[int, ...]
) -> State:
    """`statistics` as arrays, if they are a state of `estimator` for these features.

    Raises a TypeError if they have another structure or kind of dtype, or the estimator
    is none; a ValueError if they have another shape.
    """
    check_estimator(estimator)
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
        dtypes, kept = (
            jax.tree.map(lambda each: each.dtype.name, tree)
            for tree in (statistics, expected)
        )
        raise TypeError(
            f"statistics has the dtypes {dtypes}, but this estimator keeps {kept}, or "
            f"floats of another size; {mend}"
        )
    return statistics


def _is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _describe(tree: Any) -> str:
    fields = getattr(tree, "_fields", None)
    return type(tree).__name__ + (f"({', '.join(fields)})" if fields else "")
