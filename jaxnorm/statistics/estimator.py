"""The interface of estimators of running statistics, and checks of their states."""

from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnorm._core.moments import Moments

# A NamedTuple of arrays: the state of an estimator.
State = TypeVar("State")


class Estimator(Generic[State]):
    """Estimates population moments from the moments of one batch after another.

    Like an optax transformation, it is three pure functions and holds no state: the state
    is passed in and returned, with the same structure, shapes and dtypes. To write your
    own, subclass this class, preferably as a frozen dataclass, so that estimators with the
    same fields are equal. The state is a NamedTuple of arrays, which modules store under
    the names of its fields; `mean` and `var` must be among them.
    """

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> State:
        """Returns the state before any batch, for features of this shape."""
        raise NotImplementedError

    def update(self, state: State, moments: Moments) -> State:
        """Returns the state after one more batch; a count of 0 changes no statistics."""
        raise NotImplementedError

    def read(self, state: State) -> Moments:
        """Returns the moments to normalise with in evaluation.

        Their count is infinite: they describe the population, not a sample that could be
        merged.
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
    """Returns `statistics` as arrays, if they are a state of `estimator` for this shape.

    Raises a TypeError if they have another structure or kind of dtype, or `estimator` is
    not an Estimator; a ValueError if they have another shape.
    """
    check_estimator(estimator)
    expected = jax.eval_shape(lambda: estimator.init(shape))
    mend = f"start with estimator.init({shape}), then pass what the last call returned."
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
