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

    def matured(self, state: State) -> State:
        """Returns the state with the counts that it has after a long training.

        It is for statistics that come without a count of updates, such as those of flax,
        keras or an old file of torch: with a count of 0, one batch would replace them. A
        ValueError if a state is the average of as many batches as it counts, since an
        unknown number of them cannot be continued.
        """
        return state

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

    Floats may have any precision, as after a cast or an average; integers become floats
    where the estimator keeps floats. Raises a TypeError if they have another structure, or
    are not real, or `estimator` is not an Estimator; a ValueError if they have another
    shape.
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
    if not all(map(_is_real, jax.tree.leaves(statistics))):
        dtypes, kept = (
            jax.tree.map(lambda each: each.dtype.name, tree)
            for tree in (statistics, expected)
        )
        raise TypeError(
            f"statistics has the dtypes {dtypes}, but this estimator keeps {kept}, or "
            f"floats of another size; {mend}"
        )
    return jax.tree.map(_as_float, statistics, expected)


def _is_real(array: Any) -> bool:
    return any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer))


def _as_float(array: Any, expected: Any) -> Any:
    """Converts integers to the dtype of `expected`, unless that is of integers, too."""
    return array.astype(expected.dtype) if array.dtype.kind in "iu" else array


def _describe(tree: Any) -> str:
    fields = getattr(tree, "_fields", None)
    return type(tree).__name__ + (f"({', '.join(fields)})" if fields else "")
