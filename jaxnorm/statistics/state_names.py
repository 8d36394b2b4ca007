"""The arrays of an estimator's state, by the names under which a module keeps them."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.typing import DTypeLike

from jaxnorm.statistics.estimator import Estimator, State, check_estimator

TAKEN = ("scale", "bias", "steps")


def named(state: Any) -> dict[str, Any]:
    """The arrays of a state, by name.

    A field called `statistics` is left out of the names, so that the arrays of a wrapped
    estimator are still called `mean` and `var`.

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
            f"the state has arrays with the names {names}, some of them twice; do not wrap "
            "an estimator in another of its kind."
        )
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def unnamed(arrays: Mapping[str, Any], like: Any) -> Any:
    """The state with the structure of `like` and these named arrays."""
    return jax.tree.unflatten(
        jax.tree.structure(like), [arrays[name] for name in named(like)]
    )


def state_like(
    estimator: Estimator[State], shape: tuple[int, ...], dtype: DTypeLike
) -> State:
    """The shapes and dtypes of the state that a module keeps.

    Raises:
      TypeError: `estimator` is not an Estimator.
      ValueError: its state has no mean and var, or a name that modules reserve.
    """
    check_estimator(estimator)
    like = jax.eval_shape(lambda: estimator.init(shape, dtype))
    names = list(named(like))
    if not {"mean", "var"} <= set(names) or set(TAKEN) & set(names):
        raise ValueError(
            f"the state of estimator={estimator!r} has arrays with the names {names}; a "
            f"module keeps them under these names, and needs mean and var among them, but "
            f"none of {TAKEN}, which it uses itself."
        )
    return like
